// Package policy judges: pure functions of small structs, without state, clock
// or network. What may be asked of it now is access; immutability, quota and
// retention join it in their own files.
package policy

// Identity is who asks, as the door found out.
type Identity struct {
	// Name is empty for anonymous.
	Name string
	// Method is how: anonymous, htpasswd, socket.
	Method string
	Groups []string
}

// Verb is what somebody wants to do with a repository.
type Verb string

// The verbs of the distribution token specification.
const (
	Pull   Verb = "pull"
	Push   Verb = "push"
	Delete Verb = "delete"
	// List is reading the catalog; Access.Repository is then empty.
	List Verb = "list"
)

// Access is one thing that is asked for.
type Access struct {
	Repository string
	Verb       Verb
}
