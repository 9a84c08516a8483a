package check

import "time"

// HeldBy are the manifests that must be there after the operations: a push was answered, and every deletion was over
// before that push was called. A deletion of unknown outcome is never over.
func HeldBy(ops []Operation) []Held {
	pushed, deleted := map[Held]time.Duration{}, map[Held]time.Duration{}
	var order []Held
	for i := range ops {
		o := &ops[i]
		key := Held{o.Repo, o.Input}
		switch o.Kind {
		case TagPut, ManifestPut:
			if o.Outcome == Done {
				if _, known := pushed[key]; !known {
					order = append(order, key)
				}
				pushed[key] = max(pushed[key], o.Call)
			}
		case ManifestDelete:
			if o.Outcome != Refused {
				deleted[key] = max(deleted[key], o.end())
			}
		}
	}
	var held []Held
	for _, key := range order {
		if end, ok := deleted[key]; !ok || end < pushed[key] {
			held = append(held, key)
		}
	}
	return held
}

// everyNodeServes is I1.
func everyNodeServes(f *Facts) Finding {
	found := Finding{Rule: "I1", Text: "an acknowledged push is pullable byte for byte from every node until it is deleted"}
	if len(f.Nodes) == 0 {
		return found
	}
	type place struct{ node, repo, digest string }
	seen := map[place]*Content{}
	for i := range f.Contents {
		c := &f.Contents[i]
		seen[place{c.Node, c.Repo, c.Digest}] = c
	}
	blobs := map[Held][]string{}
	for _, image := range f.Images {
		blobs[Held{image.Repo, image.Digest}] = image.Blobs
	}
	for _, held := range append(HeldBy(f.Operations), f.Held...) {
		for _, digest := range append([]string{held.Digest}, blobs[held]...) {
			for _, node := range f.Nodes {
				found.Judged++
				where := held.Repo + "@" + digest
				switch c := seen[place{node, held.Repo, digest}]; {
				case c == nil:
					found.broken(where, "nobody asked %s for it", node)
				case c.Error != "":
					found.broken(where, "%s failed: %s", node, c.Error)
				case c.Bytes == "":
					found.broken(where, "%s has it not", node)
				case c.Bytes != digest:
					found.broken(where, "%s serves the bytes of %s", node, c.Bytes)
				}
			}
		}
	}
	return found
}

// layersExist is I2.
func layersExist(f *Facts) Finding {
	found := Finding{Rule: "I2", Text: "every layer of a visible manifest lies in the bucket with the right digest"}
	if !f.BucketRead {
		return found
	}
	there := map[string]bool{}
	for _, object := range f.Objects {
		there[object.Digest] = true
	}
	for _, image := range f.Visible {
		for _, blob := range image.Blobs {
			found.Judged++
			if !there[blob] {
				found.broken(image.Repo+"@"+image.Digest, "no key of the bucket holds the bytes of %s", blob)
			}
		}
	}
	return found
}

// nothingLeaks is I4. A digest needs one key.
func nothingLeaks(f *Facts, bound time.Duration) Finding {
	found := Finding{Rule: "I4", Text: "what nothing needs leaves the bucket"}
	if !f.BucketRead || bound == 0 {
		return found
	}
	needed, young, old := map[string]bool{}, map[string]int{}, map[string][]Object{}
	for _, image := range f.Visible {
		for _, blob := range image.Blobs {
			needed[blob] = true
		}
	}
	for _, object := range f.Objects {
		found.Judged++
		if object.Idle <= bound {
			young[object.Digest]++
		} else {
			old[object.Digest] = append(old[object.Digest], object)
		}
	}
	for _, object := range f.Objects {
		digest := object.Digest
		spare := old[digest]
		if needed[digest] && young[digest] == 0 && len(spare) > 0 {
			spare = spare[1:] // one of them is the one that is needed
		}
		delete(old, digest)
		for _, o := range spare {
			found.broken(o.Key, "nothing needs this key of %s since %v, at most %v", short(digest), o.Idle, bound)
		}
	}
	return found
}
