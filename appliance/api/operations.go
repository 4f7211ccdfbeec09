// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"

	"github.com/holdfast/holdfast/appliance/status"
)

func (h *handler) services(verb string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		names, err := servicesOf(r)
		if err == nil {
			_, err = query(r)
		}
		if err != nil {
			refuse(w, err)
			return
		}
		h.accept(func(ctx context.Context) (status.Operation, error) {
			return h.control.Do(ctx, verb, names)
		})(w, r)
	}
}

// accept answers with the operation that do began.
func (h *handler) accept(do func(context.Context) (status.Operation, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		op, err := do(r.Context())
		if err != nil {
			refuse(w, err)
			return
		}
		w.Header().Set("Location", "/v1/operations/"+op.ID)
		answer(w, http.StatusAccepted, op)
	}
}

func (h *handler) operation(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "wait")
	var wait bool
	if err == nil {
		wait, err = flag(q, "wait")
	}
	var op status.Operation
	var done <-chan struct{}
	if err == nil {
		op, done, err = h.control.Operation(r.PathValue("id"))
	}
	if err != nil {
		refuse(w, err)
		return
	}
	if wait {
		select {
		case <-done:
		case <-r.Context().Done():
			return
		}
		if op, _, err = h.control.Operation(op.ID); err != nil {
			refuse(w, err)
			return
		}
	}
	answer(w, http.StatusOK, op)
}
