package auth

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"
)

// Bounds of an htpasswd file.
const (
	// maxFile is in bytes.
	maxFile = 4 << 20
	// maxCost keeps one login below some 4 s; each step doubles it.
	maxCost = 16
	// maxNamed is how many faults of a file are told at once.
	maxNamed = 10
)

// parseHtpasswd reads lines of user:hash. Empty lines and lines that begin with # are skipped. It answers every usable
// user, and an error that names line and user of the others; hashes are never part of it.
func parseHtpasswd(file []byte) (map[string][]byte, error) {
	users := map[string][]byte{}
	lineOf := map[string]int{}
	var faults []error
	fault := func(line int, format string, args ...any) {
		if len(faults) < maxNamed {
			faults = append(faults, fmt.Errorf("line %d: %s", line, fmt.Sprintf(format, args...)))
		}
	}
	line := 0
	for raw := range bytes.Lines(file) {
		line++
		text := strings.TrimSpace(string(bytes.TrimPrefix(raw, []byte("\ufeff"))))
		if text == "" || text[0] == '#' {
			continue
		}
		user, hash, ok := strings.Cut(text, ":")
		switch {
		case !ok:
			fault(line, "expected user:hash")
		case !validUser(user):
			fault(line, "expected a user name of 1 to %d bytes of UTF-8 without control characters", maxUser)
		case lineOf[user] != 0:
			fault(line, "user %q is there already, in line %d", user, lineOf[user])
		default:
			if err := validHash(hash); err != nil {
				fault(line, "user %q: %v", user, err)
				break
			}
			users[user] = []byte(hash)
		}
		if _, there := lineOf[user]; ok && !there {
			lineOf[user] = line
		}
	}
	if line == 0 || (len(users) == 0 && len(faults) == 0) {
		faults = append(faults, errors.New("no user in the file, so nobody could log in: make one with `htpasswd -Bbn USER PASSWORD`"))
	}
	return users, errors.Join(faults...)
}

func validUser(name string) bool {
	return name != "" && len(name) <= maxUser && utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

// validHash: only bcrypt. MD5, SHA-1, crypt and plain text are what htpasswd also writes, and all fall to one graphics card.
func validHash(hash string) error {
	const want = "expected a bcrypt hash ($2y$…, made with `htpasswd -B`)"
	switch {
	case !strings.HasPrefix(hash, "$2a$") && !strings.HasPrefix(hash, "$2b$") && !strings.HasPrefix(hash, "$2y$"):
		return fmt.Errorf("%s, got %s", want, hashKind(hash))
	case len(hash) != 60:
		return fmt.Errorf("%s of 60 characters, got %d", want, len(hash))
	}
	cost, err := bcrypt.Cost([]byte(hash))
	if err != nil {
		return fmt.Errorf("%s: the cost cannot be read", want)
	}
	if cost < bcrypt.MinCost || cost > maxCost {
		return fmt.Errorf("bcrypt cost %d is not between %d and %d", cost, bcrypt.MinCost, maxCost)
	}
	if i := strings.IndexFunc(hash[7:], notBcrypt64); i >= 0 {
		return fmt.Errorf("%s: character %d is none of ./A-Za-z0-9", want, 7+i+1)
	}
	return nil
}

func notBcrypt64(r rune) bool {
	return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '.' || r > '9')
}

// hashKind names what stands there without showing it.
func hashKind(hash string) string {
	switch {
	case strings.HasPrefix(hash, "$apr1$"), strings.HasPrefix(hash, "$1$"):
		return "MD5"
	case strings.HasPrefix(hash, "{SHA}"), strings.HasPrefix(hash, "{SSHA}"):
		return "SHA-1"
	case strings.HasPrefix(hash, "$5$"), strings.HasPrefix(hash, "$6$"):
		return "SHA-2 crypt"
	case strings.HasPrefix(hash, "$2"):
		return "a bcrypt version that is not supported"
	case hash == "":
		return "nothing"
	}
	return "plain text or crypt"
}
