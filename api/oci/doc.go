// Package oci answers /v2/: the whole of the OCI distribution specification
// v1.1 and what its main branch has added, on every node alike. A handler is a
// few functions between meta.Ledger (what is true) and blobs.Store (what is heavy).
//
// It promises:
//
//   - Bytes, then truth: a push is acknowledged after the store holds every byte
//     and the ledger has the commit (B3, C1). A digest is claimed by nobody but
//     the hash that ran over the received bytes (B2).
//   - An upload goes on through any node, at the offset that the ledger names (B4);
//     on one node it has one writer, and a later request ends the earlier (B6).
//   - HEAD of a blob or manifest makes no storage call. Memory does not grow with
//     the size of a layer (B1); a manifest is at most meta.MaxManifest bytes.
//   - A slow push that lives is never cut: only a body that brings no byte for
//     Config.IdleTimeout is, after what arrived was saved.
//   - What was confirmed to a caller who may push stays for the grace (G8).
//   - Every error is an OCI error body that says what was expected and what came.
//
// It needs a ResponseWriter whose read and write deadlines can be set through
// http.ResponseController; a middleware's wrapper must have Unwrap.
//
// It does not decide who may do what (Access does), does not listen, log requests or
// speak TLS (package api does), and keeps no state that another node would need: only who
// writes an upload here, and the pulls counted since the last minute.
//
// # The life of an upload as a request sees it
//
//	POST ──► open ──PATCH*──► open (offset grows) ──PUT──► committed ─PUT─► 201 again
//	              └──DELETE──► cancelled ─DELETE─► 204 again
//
// A request that begins at offset 0 needs no TakeUpload: its first save is
// accepted if the upload's revision is unchanged. One that continues proposes
// TakeUpload first, which ends every earlier attempt (R-A7).
//
// A PUT that carries bytes without Content-Range and breaks off is not saved:
// a client, or a proxy, that repeats such a PUT sends the same bytes again (containerd
// does), and must find the offset it left from. A broken PATCH is saved.
package oci
