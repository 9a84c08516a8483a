package check

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxLine bounds a line of a history's file.
const maxLine = 64 << 10

// Log is a history's file, read.
type Log struct {
	Run        Run
	Operations []Operation
	Faults     []Fault
	// Torn: the last line has no end; the recorder was killed.
	Torn bool
}

// Read reads a history's file. A line that no recorder wrote is an error that names it.
func Read(r io.Reader) (*Log, error) {
	log, in := &Log{}, bufio.NewReaderSize(r, maxLine)
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			log.Torn = len(line) > 0
			return log, nil
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("history line %d: longer than %d bytes", n, maxLine)
		case err != nil:
			return nil, fmt.Errorf("read history: %w", err)
		}
		if err := log.add(line, n == 1); err != nil {
			return nil, fmt.Errorf("history line %d: %w", n, err)
		}
	}
}

func (l *Log) add(line []byte, first bool) error {
	var record Record
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&record); err != nil {
		return err
	}
	if decoder.More() {
		return errors.New("more than one value")
	}
	switch {
	case record.Run != nil && record.Operation == nil && record.Fault == nil && first:
		l.Run = *record.Run
	case record.Operation != nil && record.Run == nil && record.Fault == nil && !first:
		if err := record.Operation.validate(); err != nil {
			return err
		}
		l.Operations = append(l.Operations, *record.Operation)
	case record.Fault != nil && record.Run == nil && record.Operation == nil && !first:
		if record.Fault.From < 0 || record.Fault.Until < record.Fault.From {
			return fmt.Errorf("fault %s: from %v until %v", record.Fault.Name, record.Fault.From, record.Fault.Until)
		}
		l.Faults = append(l.Faults, *record.Fault)
	default:
		return errors.New("expected a run on the first line, one operation or one fault on any other")
	}
	return nil
}
