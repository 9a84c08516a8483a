// Package transport is a host for calls between the nodes of one cluster:
// gRPC services that others register, and Raft, over TCP with mutual TLS 1.3.
// It knows none of the services it carries except its own RaftService.
//
// The API in short:
//
//	New(Config) (*Host, error)            computes, starts nothing
//	(*Host).Registrar()                   register services here before Run
//	(*Host).Run(ctx) error                serves, blocks, waits for all it started
//	(*Host).Conn(nodeID, lane)            a shared connection to a peer: Control, Log or Bulk
//	(*Host).Dial(addr)                    a connection to an address (join, discovery); the caller closes it
//	(*Host).Forget(nodeID)                close what is open to a removed node
//	(*Host).Addr()                        where it listens
//	(*Host).Raft()                        the Raft endpoint, as long-lived as the host
//	(*Raft).Instance() *Instance          a raft.Transport for one Raft; replaces the one before
//	(*Raft).Detach()                      no Raft here for now: callers get Unavailable
//	(*Host).Recheck()                     trust has changed: judge the connections that stand (T8)
//	(*Host).Standing()                    those that stand, and who signed for their other end
//	PeerID(ctx), PeerName(ctx)            who calls, and what its certificate is for, in any handler
//	IDOf(*peer.Peer)                      who answered (with the call option grpc.Peer)
//
// What it promises:
//
//	T1  Both ends of a connection hold a certificate that Credentials accepts,
//	    and the end that was dialled by node id is that node.
//	T2  Every call names the caller's cluster id and incarnation; another's is
//	    refused with FailedPrecondition before the handler runs, except on the
//	    methods of Config.Open, which are for nodes that do not belong yet.
//	T3  Every call that Raft makes has a deadline (snapshots: one of progress,
//	    SnapshotTimeout), and nothing is left behind
//	    when it is reached: no goroutine, no queued request that runs later.
//	T4  A peer's address is looked up anew on every dial; a lost connection is
//	    redialled within a second; one that has gone silent is cut.
//	T5  Heartbeats never wait behind log entries, log entries never behind
//	    bulk data, on the wire and (heartbeats) in Raft's main loop.
//	T6  While Config.Gate reports an error, this node makes no Raft call, and
//	    answers no heartbeat, vote, pre-vote or TimeoutNow, so that others elect
//	    a leader whose disk works.
//	T7  A panic in a handler ends that call with Internal, not the process.
//	T8  A connection that would be refused now, were it new, is cut within
//	    RecheckEvery + 8 s, whoever opened it; one whose certificates have been
//	    superseded is made anew first, and no call on it fails.
//
// What it does not: it finds no nodes (Config.Resolve does), retries no call,
// and pipelines no AppendEntries (hashicorp/raft #612: a pipeline can deadlock
// after a rejected append; chaos/exhibits/pipelining.patch shows it). A peer that was out of reach for more than about a
// minute may wait up to 10 s for its first entries: Raft doubles its pause
// after each append that fails, and an append waits at most AppendTimeout for
// the peer to come back. A snapshot that comes is never given to Raft but to
// Config.Install: Raft's own way of installing one loses or wedges
// (design-review.md R-B2 to R-B4).
package transport
