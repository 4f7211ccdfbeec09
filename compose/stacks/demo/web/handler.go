// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"html/template"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/holdfast/holdfast/compose/stacks/demo/misbehave"
)

const (
	shown       = 50       // entries on the page
	maxBody     = 16 << 10 // bytes of a request
	healthFor   = 5 * time.Second
	maxAPILimit = 500
)

//go:embed static/page.html static/style.css
var static embed.FS

var page = template.Must(template.ParseFS(static, "static/page.html"))

// handler answers everything the guest book is asked.
type handler struct {
	log     *slog.Logger
	store   Store
	version string
	bad     *misbehave.Switches
}

// newHandler refuses requests that another site makes a browser send
// (http.CrossOriginProtection), so the form needs no token and no cookie.
func newHandler(log *slog.Logger, store Store, version string, bad *misbehave.Switches) http.Handler {
	h := &handler{log, store, version, bad}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", h.page)
	mux.HandleFunc("POST /{$}", h.sign)
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, static, "static/style.css")
	})
	mux.HandleFunc("GET /healthz", h.health)
	mux.HandleFunc("GET /version", h.about)
	mux.HandleFunc("GET /api/entries", h.list)
	mux.HandleFunc("POST /api/entries", h.create)
	guarded := http.NewCrossOriginProtection().Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := w.Header()
		s.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		s.Set("X-Content-Type-Options", "nosniff")
		s.Set("Referrer-Policy", "no-referrer")
		s.Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		guarded.ServeHTTP(w, r)
	})
}

// view is what the page shows.
type view struct {
	Version                         string
	Schema                          int
	HasPlace                        bool
	Entries                         []Entry
	Total                           int64
	Draft                           Entry
	Problem                         string
	MaxAuthor, MaxPlace, MaxMessage int
}

func (h *handler) page(w http.ResponseWriter, r *http.Request) {
	h.render(w, r, http.StatusOK, Entry{}, "")
}

func (h *handler) render(w http.ResponseWriter, r *http.Request, status int, draft Entry, problem string) {
	schema, err := h.store.Schema(r.Context())
	if err != nil {
		h.away(w, r, err)
		return
	}
	entries, total, err := h.store.Newest(r.Context(), shown)
	if err != nil {
		h.away(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	err = page.Execute(w, view{Version: h.version, Schema: schema, HasPlace: h.store.HasPlace(), Entries: entries, Total: total,
		Draft: draft, Problem: problem, MaxAuthor: maxAuthor, MaxPlace: maxPlace, MaxMessage: maxMessage})
	if err != nil {
		h.log.Warn("the page was cut short", "error", err)
	}
}

// sign takes the form and sends the browser back to the page, so that a reload
// does not sign again.
func (h *handler) sign(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "The form could not be read: "+err.Error(), http.StatusBadRequest)
		return
	}
	draft := Entry{Author: r.PostForm.Get("author"), Message: r.PostForm.Get("message"), Place: r.PostForm.Get("place")}
	e, err := draft.clean(h.store.HasPlace())
	if err != nil {
		h.render(w, r, http.StatusUnprocessableEntity, e, err.Error())
		return
	}
	if e, err = h.add(r.Context(), e); err != nil {
		h.away(w, r, err)
		return
	}
	http.Redirect(w, r, "/#entry-"+strconv.FormatInt(e.ID, 10), http.StatusSeeOther)
}

// add writes only to the schema this program was written for.
func (h *handler) add(ctx context.Context, e Entry) (Entry, error) {
	if _, err := h.store.Schema(ctx); err != nil {
		return e, err
	}
	return h.store.Add(ctx, e)
}

// away is the answer while the database is not there; the reason goes to the
// log, not to strangers.
func (h *handler) away(w http.ResponseWriter, r *http.Request, err error) {
	h.log.Error("no answer from the store", "path", r.URL.Path, "error", err)
	w.Header().Set("Retry-After", "5")
	http.Error(w, "The guest book cannot be opened at the moment. Please try again shortly.", http.StatusServiceUnavailable)
}

// health tells whether this program can do its work now. Its reason stays
// inside the stack: edge passes on the status alone.
func (h *handler) health(w http.ResponseWriter, r *http.Request) {
	if h.bad.Unhealthy(time.Now()) {
		http.Error(w, "FAIL_HEALTH is set", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), healthFor)
	defer cancel()
	if _, err := h.store.Schema(ctx); err != nil {
		http.Error(w, "database: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}

func (h *handler) about(w http.ResponseWriter, r *http.Request) {
	answer := struct {
		Version string `json:"version"`
		Schema  int    `json:"schema"`
		Error   string `json:"error,omitempty"`
	}{Version: h.version}
	status := http.StatusOK
	var err error
	if answer.Schema, err = h.store.Schema(r.Context()); err != nil {
		h.log.Error("no answer from the store", "path", r.URL.Path, "error", err)
		status, answer.Error = http.StatusServiceUnavailable, "the database does not answer or has another schema"
	}
	h.json(w, status, answer)
}

func (h *handler) list(w http.ResponseWriter, r *http.Request) {
	limit := shown
	if s := r.URL.Query().Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > maxAPILimit {
			h.json(w, http.StatusBadRequest, problem{"limit must be a number from 1 to " + strconv.Itoa(maxAPILimit)})
			return
		}
		limit = n
	}
	entries, total, err := h.store.Newest(r.Context(), limit)
	if err != nil {
		h.log.Error("no answer from the store", "path", r.URL.Path, "error", err)
		h.json(w, http.StatusServiceUnavailable, problem{"the database does not answer"})
		return
	}
	if entries == nil {
		entries = []Entry{}
	}
	h.json(w, http.StatusOK, map[string]any{"entries": entries, "total": total})
}

type problem struct {
	Error string `json:"error"`
}

func (h *handler) create(w http.ResponseWriter, r *http.Request) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		h.json(w, http.StatusUnsupportedMediaType, problem{"send application/json"})
		return
	}
	var in struct {
		Author  string `json:"author"`
		Message string `json:"message"`
		Place   string `json:"place"`
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(&in)
	if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
		h.json(w, http.StatusRequestEntityTooLarge, problem{err.Error()})
		return
	}
	if err != nil || d.More() {
		h.json(w, http.StatusBadRequest, problem{"one JSON object with author, message and place belongs here"})
		return
	}
	e, err := Entry{Author: in.Author, Message: in.Message, Place: in.Place}.clean(h.store.HasPlace())
	if err != nil {
		h.json(w, http.StatusUnprocessableEntity, problem{err.Error()})
		return
	}
	if e, err = h.add(r.Context(), e); err != nil {
		h.log.Error("no answer from the store", "path", r.URL.Path, "error", err)
		h.json(w, http.StatusServiceUnavailable, problem{"the database does not answer"})
		return
	}
	h.json(w, http.StatusCreated, e)
}

func (h *handler) json(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		h.log.Warn("the answer was cut short", "error", err)
	}
}
