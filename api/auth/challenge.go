package auth

import (
	"encoding/base64"
	"errors"
	"strings"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// ChallengeError is a refusal with what the client needs in order to log in.
type ChallengeError struct {
	refusal    *meta.Error
	challenges []string
}

func (e *ChallengeError) Error() string { return e.refusal.Error() }

// Unwrap answers the *meta.Error of KIND_UNAUTHENTICATED.
func (e *ChallengeError) Unwrap() error { return e.refusal }

// Challenge answers the values of WWW-Authenticate (RFC 9110, section 11.6.1), one for each header line.
func (e *ChallengeError) Challenge() []string { return e.challenges }

func (a *Authenticator) unauthenticated(why string) error {
	return &ChallengeError{
		refusal:    meta.Refuse(metav1.Kind_KIND_UNAUTHENTICATED, metav1.Noun_NOUN_UNSPECIFIED, "login required: %s", why),
		challenges: []string{a.challenge},
	}
}

// basicChallenge is RFC 7617, section 2. The realm is a quoted-string (RFC 9110, section 5.6.4).
func basicChallenge(realm string) string {
	return `Basic realm="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(realm) + `"`
}

var (
	errNoCredentials = errors.New("no credentials were sent")
	errManyHeaders   = errors.New("expected one Authorization header")
	errNotBasic      = errors.New("expected an Authorization header of the scheme Basic")
	errBadBasic      = errors.New("expected Basic followed by the base64 of user:password")
	errLongBasic     = errors.New("user is longer than 255 bytes or password than 1024")
)

// basicCredentials reads the values of Authorization. Its errors are fit for clients: they repeat nothing of what was sent.
func basicCredentials(values []string) (user, password string, err error) {
	if len(values) == 0 {
		return "", "", errNoCredentials
	}
	if len(values) > 1 {
		return "", "", errManyHeaders
	}
	scheme, encoded, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", errNotBasic
	}
	encoded = strings.Trim(encoded, " ")
	if len(encoded) > base64.StdEncoding.EncodedLen(maxUser+1+maxPassword) {
		return "", "", errLongBasic
	}
	plain, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return "", "", errBadBasic
	}
	user, password, ok := strings.Cut(string(plain), ":")
	if !ok || user == "" {
		return "", "", errBadBasic
	}
	if len(user) > maxUser || len(password) > maxPassword {
		return "", "", errLongBasic
	}
	return user, password, nil
}
