//go:build faults

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"time"
)

// handler is the control API; see faults.
func (f *faults) handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { tell(w, f.state()) })
	m.HandleFunc("PUT /{$}", put(f, func(s harm) harm { return s }))
	m.HandleFunc("PUT /dial", put(f, func(d map[string]string) harm { return harm{Dial: d} }))
	m.HandleFunc("PUT /clock", put(f, func(c clockSetting) harm { return harm{Clock: &c} }))
	m.HandleFunc("PUT /space", put(f, func(s spaceSetting) harm { return harm{Space: &s} }))
	m.HandleFunc("PUT /disk", put(f, func(d map[string]diskSetting) harm { return harm{Disk: &d} }))
	m.HandleFunc("GET /events", f.events)
	m.HandleFunc("POST /rules", f.addRule)
	m.HandleFunc("DELETE /rules", func(w http.ResponseWriter, _ *http.Request) { f.rules.clear(); tell(w, f.state()) })
	m.HandleFunc("GET /rules/{id}", oneRule(f.rules.get))
	m.HandleFunc("DELETE /rules/{id}", oneRule(f.rules.remove))
	return m
}

// state is the answer of GET /.
func (f *faults) state() any {
	all, points := f.rules.list()
	f.mu.Lock()
	defer f.mu.Unlock()
	return struct {
		Dial   map[string]string      `json:"dial"`
		Clock  duration               `json:"clock"`
		Free   *int64                 `json:"space"`
		Disk   map[string]diskSetting `json:"disk"`
		Rules  []rule                 `json:"rules"`
		Points map[string]int         `json:"points"`
		Now    time.Time              `json:"now"`
	}{maps.Clone(f.routes), duration(f.offset), f.free, f.diskSettings(), all, points, time.Now().Add(f.offset)}
}

// put changes what the body says, as a harm.
func put[T any](f *faults, as func(T) harm) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var into T
		if !read(w, r, &into) {
			return
		}
		if err := f.set(as(into)); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		tell(w, f.state())
	}
}

func (f *faults) addRule(w http.ResponseWriter, r *http.Request) {
	var add rule
	if !read(w, r, &add) {
		return
	}
	id, err := f.rules.add(add)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	tell(w, map[string]int{"id": id})
}

func oneRule(what func(int) (rule, bool)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.Atoi(r.PathValue("id"))
		if err != nil {
			http.Error(w, "the id of a rule is a number", http.StatusBadRequest)
			return
		}
		found, ok := what(id)
		if !ok {
			http.Error(w, fmt.Sprintf("there is no rule %d", id), http.StatusNotFound)
			return
		}
		tell(w, found)
	}
}

func read(w http.ResponseWriter, r *http.Request, into any) bool {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err == nil {
		err = strictly(body, into)
	}
	if err != nil {
		http.Error(w, "read the body: "+err.Error(), http.StatusBadRequest)
	}
	return err == nil
}

func tell(w http.ResponseWriter, what any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(what) // the test may be gone
}
