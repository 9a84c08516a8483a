// Package api is the door of a node: two listeners, what every request passes
// on its way to a handler, and what operators see of it (health, metrics, logs).
//
// # What it promises
//
//	A1  A slow push or pull that still moves is never cut: there is no timeout over a whole
//	    request, only one over silence (Config.IdleBody; of an answer, 128 KiB must go in that time). Requests
//	    that carry no layer have a deadline.
//	A2  A client that hangs is cut: while it sends its header (HeaderTimeout), while it owes a
//	    body or does not take an answer (IdleBody), between requests (IdleTimeout).
//	A3  A panic in a handler becomes a 500 with an OCI error body, a log line with its stack and a
//	    metric; when the answer has begun, the connection is cut so that the client notices. The node lives on.
//	A4  Draining loses no request that ends within the drain timeout: readiness fails first, then answers tell
//	    clients to go elsewhere, then the listener closes, then requests in flight are awaited, then cut.
//	A5  Secrets are not logged: no Authorization header, no token or password of a query.
//	A6  A certificate that cannot be loaded never replaces one that works.
//	A7  The client address is the connection's, or what a PROXY header from a trusted range says; headers such as
//	    X-Forwarded-For are not believed.
//	A8  Labels of metrics are drawn from fixed lists; no repository name is a label.
//
// # What it does not
//
// It knows no route below /v2/, decides nobody's rights and limits no rate. It does not speak HTTP/2
// without TLS. It serves no path prefix (http.prefix). Requests longer than the drain timeout are cut.
//
// # The life of a server
//
//	New ── Run(ctx) ── serving ── ctx ends ── draining: unready, "Connection: close" ── (DrainDelay)
//	    ── not listening, idle connections closed ── (all requests ended, or DrainTimeout) ── cut ── Run returns
package api
