package blobs

import (
	"fmt"
	"strconv"
	"strings"
)

// maxElement bounds each element of a key, in bytes: a file name may have 255.
const maxElement = 128

// maxFurther bounds the number of further objects of an attempt.
const maxFurther = 1<<31 - 1

// Key answers the key of the attempt's object n: "<epoch>/<upload>/<attempt>"
// for 0, with ".<n>" after it for the further ones. The name must be valid.
func (n Name) Key(object int) string {
	key := n.Epoch + "/" + n.Upload + "/" + n.Attempt
	if object > 0 {
		key += "." + strconv.Itoa(object)
	}
	return key
}

// Validate answers an error that names the element and the bound: each is 1 to
// 128 of the characters a-z and 0-9. So no key leaves its folder, no key is
// another's folder, and the order of keys is the order of a walk through folders.
func (n Name) Validate() error {
	for _, e := range []struct{ field, value string }{
		{"epoch", n.Epoch}, {"upload", n.Upload}, {"attempt", n.Attempt},
	} {
		if err := checkElement(e.value); err != nil {
			return fmt.Errorf("key: %s %w", e.field, err)
		}
	}
	return nil
}

// ParseKey is the inverse of Name.Key: it accepts exactly what Key answers for valid names.
func ParseKey(key string) (name Name, object int, err error) {
	elements := strings.Split(key, "/")
	if len(elements) != 3 {
		return Name{}, 0, fmt.Errorf("key %.200q: must be epoch/upload/attempt, has %d elements", key, len(elements))
	}
	attempt, number, further := strings.Cut(elements[2], ".")
	name = Name{Epoch: elements[0], Upload: elements[1], Attempt: attempt}
	if err := name.Validate(); err != nil {
		return Name{}, 0, err
	}
	if !further {
		return name, 0, nil
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > maxFurther || strconv.FormatInt(n, 10) != number {
		return Name{}, 0, fmt.Errorf("key %.200q: the number after the attempt must be 1 to %d, without leading zeros", key, maxFurther)
	}
	return name, int(n), nil
}

// ValidateObjectName judges the name of a small object (Objects): 1 to 8
// elements between slashes, each 1 to 128 of a-z A-Z 0-9 . _ - and not beginning with a dot.
func ValidateObjectName(name string) error {
	elements := strings.Split(name, "/")
	if len(elements) > 8 {
		return fmt.Errorf("object name %.200q: at most 8 elements, has %d", name, len(elements))
	}
	for _, e := range elements {
		if len(e) < 1 || len(e) > maxElement || e[0] == '.' {
			return fmt.Errorf("object name %.200q: elements have 1 to %d characters and begin with no dot", name, maxElement)
		}
		for i := range len(e) {
			if c := e[i]; !lowerOrDigit(c) && (c < 'A' || c > 'Z') && c != '.' && c != '_' && c != '-' {
				return fmt.Errorf("object name %.200q: may hold a-z A-Z 0-9 . _ - and /, holds %q", name, c)
			}
		}
	}
	return nil
}

func checkElement(e string) error {
	if len(e) < 1 || len(e) > maxElement {
		return fmt.Errorf("must have 1 to %d characters, has %d", maxElement, len(e))
	}
	for i := range len(e) {
		if !lowerOrDigit(e[i]) {
			return fmt.Errorf("may hold a-z and 0-9 only, holds %q", e[i])
		}
	}
	return nil
}

func lowerOrDigit(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
}
