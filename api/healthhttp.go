package api

import (
	"encoding/json"
	"net/http"
	"net/http/pprof"
)

// publicHealth serves "/", /livez, /readyz and /startupz on the registry listener: a status word only, since
// anybody may ask.
func publicHealth(h *Health) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch ok, known := h.probe(r); {
		case !known:
			http.NotFound(w, r)
		case ok:
			word(w, http.StatusOK, "ok\n")
		default:
			word(w, http.StatusServiceUnavailable, "unavailable\n")
		}
	})
}

// probe answers the health question that r asks.
func (h *Health) probe(r *http.Request) (ok, known bool) {
	switch r.URL.Path {
	case "/", "/livez":
		return true, true // that this is answered is the answer
	case "/readyz", "/healthz", "/debug/health":
		return h.Report(r.Context()).Ready, true
	case "/startupz":
		return h.Startup(r.Context()), true
	}
	return false, false
}

func word(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// DebugHandler serves health with what fails, metrics and state. It has no login: mount it only
// where operators are, as the debug listener and the operators' socket.
func (s *Server) DebugHandler() http.Handler {
	h, mux := s.cfg.Health, http.NewServeMux()
	detailed := func(w http.ResponseWriter, r *http.Request) {
		rep := h.Report(r.Context())
		status := http.StatusOK
		if !rep.Ready {
			status = http.StatusServiceUnavailable
		}
		writeJSON(w, status, rep)
	}
	mux.HandleFunc("GET /{$}", publicHealth(h).ServeHTTP)
	mux.HandleFunc("GET /livez", publicHealth(h).ServeHTTP)
	mux.HandleFunc("GET /readyz", detailed)
	mux.HandleFunc("GET /healthz", detailed)
	mux.HandleFunc("GET /debug/health", detailed)
	mux.HandleFunc("GET /startupz", func(w http.ResponseWriter, r *http.Request) {
		started, status := h.Startup(r.Context()), http.StatusOK
		if !started {
			status = http.StatusServiceUnavailable
		}
		writeJSON(w, status, map[string]bool{"started": started})
	})
	mux.HandleFunc("GET /debug/state", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, h.cfg.Node.DebugState())
	})
	mux.Handle("GET /metrics", s.cfg.Metrics.Handler())
	// Profiles, where distribution's operators look for them.
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, "encode answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
