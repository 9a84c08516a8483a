package proxy

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strconv"
)

// What is remembered of lists, to be told again when it is no longer true.
const (
	maxLists = 256
	maxList  = 1 << 20 // bytes of one
)

// lists is path and query → the last answer.
type lists map[string]*list

type list struct {
	header http.Header
	body   []byte
}

func listKey(r *http.Request) string { return r.URL.Path + "?" + r.URL.Query().Encode() }

// remember keeps a list that passes.
func (s *S3) remember(q *request, answer *http.Response) error {
	if !slices.Contains(Lists(), q.operation) || answer.StatusCode != http.StatusOK {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxList+1))
	if err != nil {
		return err
	}
	if len(body) > maxList { // sent on, not kept
		answer.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(body), answer.Body), answer.Body}
		return nil
	}
	answer.Body.Close()
	answer.Body = io.NopCloser(bytes.NewReader(body))
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lists) >= maxLists {
		clear(s.lists)
	}
	s.lists[listKey(q.Request)] = &list{header: answer.Header.Clone(), body: body}
	return nil
}

// stale answers with what was true.
func (s *S3) stale(w http.ResponseWriter, q *request) {
	s.mu.Lock()
	l := s.lists[listKey(q.Request)]
	s.mu.Unlock()
	if l == nil { // forgotten since pick
		s.forward(w, q)
		return
	}
	for name, values := range l.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(l.body)))
	_, _ = w.Write(l.body)
}
