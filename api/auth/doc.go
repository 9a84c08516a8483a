// Package auth finds out who sends a request and says what they may do.
//
// # What it promises
//
//	U1  Who is not known to be somebody is refused as KIND_UNAUTHENTICATED with a challenge, whatever they ask for and
//	    whether or not it exists.
//	U2  A login takes as long for a user that does not exist as for one that does.
//	U3  Passwords are kept nowhere: what is remembered of a login is a keyed hash under a key of this process,
//	    for a short time, and forgotten as soon as the file changes.
//	U4  Logins cannot take the machine: bcrypt runs on as many cores as there are, those who wait are bounded in
//	    number and time, and are then refused as KIND_UNAVAILABLE.
//	U5  A file that cannot be used is named at start with line and user, and never replaces a good one later.
//
// # What it does not
//
// It does not tell users apart by right yet: who is logged in may do everything. Allows is the place where roles
// will be asked, and every route asks it already. It does not limit guesses by address, and writes no log line for
// them: Config.OnLogin counts, the access log has the 401s. It judges a request when it begins: an upload that was
// allowed goes on when its user is removed meanwhile. A removed user is refused about a second after the file changed.
package auth
