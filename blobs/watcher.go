package blobs

// Why a call was refused without asking the store.
const (
	// RefusedOpen: the store did not answer the calls before (Breaker).
	RefusedOpen = "open"
	// RefusedBusy: too many calls are in flight (Limit).
	RefusedBusy = "busy"
)

// Watcher is told what the decorators decide. It must be quick and safe for concurrent use.
type Watcher interface {
	// Refused counts a call that was answered ErrRefused, and why.
	Refused(why string)
	// Repeated counts what was done again after it had failed: a stream that was opened again, or a call of the driver.
	Repeated(action string)
	// Opened says whether the breaker refuses from now on.
	Opened(open bool)
}
