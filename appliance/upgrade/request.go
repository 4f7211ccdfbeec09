// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"time"

	"github.com/holdfast/holdfast/appliance/slot"
)

// mostTries bounds how often one that was cut off before it was armed is
// begun again by itself.
const mostTries = 3

// request is what was asked for and not decided yet. It lies in a file of its
// own, not in the record: the record says what may run, and an old supervisor
// has to read it; a request lost or damaged loses a wish, never a box. It is
// written before anything is done for it, and removed after its row is in the
// history.
type request struct {
	// Kind as slot's; Ask of an upgrade, Back of a rollback.
	Kind string `json:"kind"`
	Ask  Ask    `json:"ask,omitzero"`
	Back Back   `json:"back,omitzero"`
	// Candidate of an upgrade.
	Candidate *Candidate `json:"candidate,omitempty"`
	// From is the release that ran, "NAME VERSION"; To the other.
	From string `json:"from"`
	To   string `json:"to"`
	// Start of it.
	Start time.Time `json:"start"`
	// Window to switch in, nil for at once.
	Windows []Window `json:"windows,omitempty"`
	// Ready is true once all is on the box.
	Ready   bool  `json:"ready,omitempty"`
	Fetched int64 `json:"fetched,omitempty"`
	Reused  int64 `json:"reused,omitempty"`
	// Number of the trial, 0 before it is armed.
	Number int `json:"number,omitempty"`
	// Reboot as in the trial.
	Reboot bool `json:"reboot,omitempty"`
	// Armed is when; Quiesced when the services were stopped.
	Armed    time.Time `json:"armed,omitzero"`
	Quiesced time.Time `json:"quiesced,omitzero"`
	// Healthy is when the services of the trial were healthy first.
	Healthy time.Time `json:"healthy,omitzero"`
	// Boots so far.
	Boots []string `json:"boots,omitempty"`
	// Baseline of before.
	Baseline Baseline `json:"baseline,omitzero"`
	// Tries counts how often it was begun again.
	Tries int `json:"tries,omitempty"`
}

func (r *request) digest() string {
	if r.Candidate == nil {
		return ""
	}
	return r.Candidate.Digest
}

// addBoot notes a boot id, once.
func (r *request) addBoot(id string) bool {
	for _, b := range r.Boots {
		if b == id {
			return false
		}
	}
	r.Boots = append(r.Boots, id)
	return true
}

// loadRequest reads the request, nil for none. One that can't be read is
// dropped: it is a wish, and the one who had it sees that nothing is on its way.
func (m *Machine) loadRequest() *request {
	var r request
	ok, err := readJSON(m.c.Files, requestFile, &r)
	switch {
	case err != nil:
		m.say("what was asked for can't be read and is forgotten: %v", err)
		return nil
	case !ok || r.Kind != slot.Upgrade && r.Kind != slot.Rollback && r.Kind != slot.Drill || r.Kind == slot.Upgrade && r.Candidate == nil:
		return nil
	}
	return &r
}

// keepRequest writes it down and makes it the one.
func (m *Machine) keepRequest(r *request) error {
	if err := writeJSON(m.c.Files, requestFile, r); err != nil {
		return err
	}
	m.setRequest(r)
	return nil
}

func (m *Machine) dropRequest() error {
	if err := m.c.Files.Remove(requestFile); err != nil {
		return err
	}
	m.setRequest(nil)
	return nil
}

func (m *Machine) setRequest(r *request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.req = nil
	if r != nil {
		c := *r
		m.req = &c
	}
}

// request is a copy of the one, nil for none.
func (m *Machine) request() *request {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.req == nil {
		return nil
	}
	c := *m.req
	return &c
}
