// Package admin is the operators' door: the services of pontoon.admin.v1 over
// a meta.Ledger, for the CLI, for curl (JSON over HTTP) and for gRPC clients.
//
// It promises that
//
//  1. whoever reaches the socket is who the kernel says (peer credentials), and is
//     root or the user that runs the node; there is no password to lose;
//  2. every list is one page of a linearizable state, and a removal is one the
//     ledger decided, with the operator's name in its event;
//  3. a preview runs the same reads as the removal, and changes nothing;
//  4. status answers without a quorum;
//  5. a call that streams passes the same door as all others, and who hangs up ends the call, never a cycle
//     of garbage collection.
//
// It does not serve anything but the socket, decides no rule (meta does), frees
// no storage, and keeps no state of its own. Between a preview and
// its removal the registry may change: pass the digest on to be sure.
package admin
