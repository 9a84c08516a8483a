package meta

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// object is a JSON object by exact key; a null value counts as absent.
type object map[string]json.RawMessage

// readObject reads one object of a body that is valid JSON. encoding/json takes
// the last of two equal keys and matches struct fields whatever their case; a
// client that takes the first would see another manifest under the same
// digest, so equal keys are refused, and keys match exactly.
func readObject(field string, raw []byte) (object, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, badManifest(field, "is not a JSON object")
	}
	out := make(object)
	for dec.More() {
		t, err := dec.Token()
		key, ok := t.(string)
		if err != nil || !ok {
			return nil, badManifest(field, "is not a JSON object")
		}
		if _, twice := out[key]; twice {
			return nil, badManifest(field, "has the key %q twice", clip(key))
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, badManifest(field, "has no value for the key %q", clip(key))
		}
		out[key] = value
	}
	for key, value := range out {
		if string(value) == "null" {
			delete(out, key)
		}
	}
	return out, nil
}

// text answers a string member, "" when it is absent.
func (o object) text(field string) (string, error) {
	raw, ok := o[field]
	if !ok {
		return "", nil
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", badManifest(field, "is not a string")
	}
	return s, nil
}

// integer answers an integer member, 0 when it is absent.
func (o object) integer(field string) (int64, error) {
	raw, ok := o[field]
	if !ok {
		return 0, nil
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		return 0, badManifest(field, "got %s, expected an integer", clip(string(raw)))
	}
	return n, nil
}

// without refuses members that make a body mean two things.
func (o object) without(fields ...string) error {
	for _, f := range fields {
		if _, ok := o[f]; ok {
			return badManifest(f, "must not stand in a manifest of this media type")
		}
	}
	return nil
}

// descriptor is what we read of an OCI descriptor.
type descriptor struct {
	mediaType string
	digest    Digest
	size      int64
}

// descriptor reads a descriptor member.
func (o object) descriptor(field string) (d descriptor, ok bool, err error) {
	raw, ok := o[field]
	if !ok {
		return descriptor{}, false, nil
	}
	d, err = readDescriptor(field, raw)
	return d, true, err
}

func readDescriptor(field string, raw []byte) (descriptor, error) {
	o, err := readObject(field, raw)
	if err != nil {
		return descriptor{}, err
	}
	var d descriptor
	if d.mediaType, err = o.text("mediaType"); err != nil {
		return d, badManifest(field+".mediaType", "is not a string")
	}
	text, err := o.text("digest")
	if err != nil {
		return d, badManifest(field+".digest", "is not a string")
	}
	if d.digest, err = ParseDigest(text); err != nil {
		return d, badManifest(field+".digest", "%s", messageOf(err))
	}
	if _, ok := o["size"]; !ok {
		return d, badManifest(field+".size", "is missing")
	}
	if d.size, err = o.integer("size"); err != nil || d.size < 0 {
		return d, badManifest(field+".size", "got %s, expected an integer of at least 0", clip(string(o["size"])))
	}
	return d, nil
}

func indexed(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }
