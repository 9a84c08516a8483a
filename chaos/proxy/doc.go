// Package proxy is the network of the chaos suite: TCP lines, a mesh of them, and a fault layer before an S3 server. Nodes
// speak through it and cannot tell; a test changes at run time what it does to them.
//
//	node A ── Line A→B ──▶ node B          one line per directed pair: what A dials B by, both ways of it
//	node B ── Line B→A ──▶ node A
//	node A ── Line A→s3 ──▶ S3 ──▶ server  the S3 layer has a door for each node, so it knows who asks
//
// What it promises:
//
//  1. A line that passes changes nothing: bytes, half closes and resets arrive as they were sent.
//  2. A line that is a black hole carries nothing and closes nothing: whoever speaks through it finds out by his own
//     deadline. What was under way goes on when it heals, as TCP would resend it.
//  3. What was asked for is counted: a fault that never struck can be told from one that was survived.
//  4. Every goroutine is waited for by Close; queues, connections and buffered bodies are bounded.
//  5. The S3 layer forwards what it does not spoil as it came, the Host header too: a signature stays valid.
//
// What it does not: it is no packet filter. The kernel acknowledges what a line has taken and not carried, so a sender
// notices a black hole later than a real one, by at most the bytes that fit in a line's queue. UDP does not pass through it.
// Real loss is for network namespaces (see TestTheNetworkItself in package chaos).
package proxy
