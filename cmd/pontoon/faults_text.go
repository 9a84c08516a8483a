//go:build faults

package main

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// describeCommand is a command as rules match it: its name, then its fields, digests as clients write them.
func describeCommand(c *metav1.Command) string {
	var b strings.Builder
	m := c.ProtoReflect()
	if kind := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind")); kind != nil {
		body := m.Get(kind).Message()
		b.WriteString(string(body.Descriptor().Name()))
		writeFields(&b, body)
	}
	b.WriteString(" by")
	writeFields(&b, c.GetEnvelope().ProtoReflect())
	return b.String()
}

// writeFields writes the fields that are set.
func writeFields(b *strings.Builder, m protoreflect.Message) {
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.IsMap(): // no command has one
		case field.IsList():
			for i := range v.List().Len() {
				writeField(b, field, v.List().Get(i))
			}
		default:
			writeField(b, field, v)
		}
		return true
	})
}

func writeField(b *strings.Builder, field protoreflect.FieldDescriptor, v protoreflect.Value) {
	fmt.Fprintf(b, " %s=", field.Name())
	switch field.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		b.WriteString("{")
		writeFields(b, v.Message())
		b.WriteString(" }")
	case protoreflect.BytesKind:
		b.WriteString(bytesText(v.Bytes()))
	default:
		fmt.Fprint(b, v.Interface())
	}
}

// bytesText is a digest where they are one.
func bytesText(raw []byte) string {
	if d, err := meta.UnpackDigest(raw); err == nil {
		return d.String()
	}
	if len(raw) > 64 {
		return fmt.Sprintf("%d bytes", len(raw))
	}
	return hex.EncodeToString(raw)
}

func describeLogs(logs []*raft.Log) string {
	var b strings.Builder
	for _, l := range logs {
		fmt.Fprintf(&b, "[%d of term %d %s", l.Index, l.Term, l.Type)
		if l.Type == raft.LogCommand {
			describeEntry(&b, l.Data)
		}
		b.WriteString("]")
	}
	return b.String()
}

func describeEntries(entries []meta.LogEntry) string {
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "[%d of term %d", e.Index, e.Term)
		describeEntry(&b, e.Data)
		b.WriteString("]")
	}
	return b.String()
}

func describeEntry(b *strings.Builder, data []byte) {
	var e metav1.Entry
	if err := proto.Unmarshal(data, &e); err != nil {
		fmt.Fprintf(b, " undecodable: %v", err)
		return
	}
	for _, c := range e.GetCommands() {
		b.WriteString(" " + describeCommand(c))
	}
}
