package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// progress is one line on a terminal that is written over; elsewhere nothing is written.
type progress struct {
	// to is nil where nobody watches.
	to    io.Writer
	shown bool
}

func (a *app) progress() *progress {
	f, ok := a.err.(*os.File)
	if !ok || a.json() {
		return &progress{}
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return &progress{}
	}
	return &progress{to: f}
}

// lineBound keeps the line within a terminal's, in bytes.
const lineBound = 100

// show writes over the line.
func (p *progress) show(text string) {
	if p.to != nil {
		_, _ = fmt.Fprintf(p.to, "\r\x1b[K%s", text[:min(len(text), lineBound)]) // only for eyes
		p.shown = true
	}
}

// end takes the line away.
func (p *progress) end() {
	if p.shown {
		_, _ = io.WriteString(p.to, "\r\x1b[K")
		p.shown = false
	}
}

// showLine writes one message of many as a line of JSON.
func (a *app) showLine(m proto.Message) error {
	body, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	var buf bytes.Buffer
	if err := json.Compact(&buf, body); err != nil { // protojson varies its spaces on purpose
		return fmt.Errorf("encode answer: %w", err)
	}
	_, err = fmt.Fprintln(a.out, buf.String())
	return err
}
