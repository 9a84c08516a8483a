package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// show writes a message as JSON, or as text does.
func (a *app) show(m proto.Message, text func(io.Writer)) error {
	if !a.json() {
		var buf bytes.Buffer
		text(&buf)
		_, err := a.out.Write(buf.Bytes())
		return err
	}
	body, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	// protojson varies its spaces on purpose; scripts and diffs want them still.
	var buf bytes.Buffer
	if err := json.Indent(&buf, body, "", "  "); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	_, err = fmt.Fprintln(a.out, buf.String())
	return err
}

// write writes what text writes, all at once.
func (a *app) write(text func(io.Writer)) error {
	var buf bytes.Buffer
	text(&buf)
	_, err := a.out.Write(buf.Bytes())
	return err
}

// showJSON writes any value as JSON.
func (a *app) showJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// columns writes rows as a table.
func columns(w io.Writer, head string, rows [][]string) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, head) // a bytes.Buffer takes all
	for _, row := range rows {
		_, _ = fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	_ = tw.Flush()
}

// size writes bytes for people.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/unit, 0
	for f >= unit && i < 4 {
		f, i = f/unit, i+1
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTP"[i])
}

// when writes a time for people.
func when(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().Local().Format(time.DateTime)
}

// dash stands for an empty column.
func dash(s string) string { return orText(s, "-") }

// destructive are the flags of a verb that removes something.
type destructive struct{ yes, dry bool }

func (d *destructive) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&d.yes, "yes", "y", false, "do it without asking")
	cmd.Flags().BoolVar(&d.dry, "dry-run", false, "show what would be removed, and remove nothing")
}

// confirm asks for a yes unless --yes said it. Without somebody to ask it refuses.
func (a *app) confirm(cmd *cobra.Command, d destructive, preview string) error {
	if d.yes {
		return nil
	}
	_, _ = fmt.Fprintf(a.err, "%sGo on? [y/N] ", preview) // the answer decides, not the question
	line, err := bufio.NewReader(io.LimitReader(a.in, 1024)).ReadString('\n')
	if err != nil && line == "" {
		_, _ = fmt.Fprintln(a.err)
		return usage(cmd, "nobody answered: say --yes to go on without being asked")
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return &codedError{exitFailure, fmt.Errorf("nothing was removed")}
}
