package archive

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Manifest is promdump.json: what was asked for, of whom, and what was planned.
// It is for people and for tools that look before they restore; what the dump
// holds is said by its entries alone. Times named MinTime and MaxTime are Unix
// milliseconds; From and To say the same in RFC 3339 and are filled in by
// Writer.Manifest.
type Manifest struct {
	Format    int       `json:"format"` // set by Writer.Manifest
	Tool      string    `json:"tool"`   // "promdump v1.2.3"
	Created   time.Time `json:"created"`
	Source    Source    `json:"source"`
	Selection Selection `json:"selection"`
	Plan      Plan      `json:"plan"`

	// Notes are what was found while the dump was written. They are stored in a
	// separate entry after the files.
	Notes []string `json:"notes,omitempty"`
}

// notesFile is the content of the entry NotesName.
type notesFile struct {
	Notes []string `json:"notes"`
}

func encodeNotes(notes []string) ([]byte, error) {
	text, err := json.MarshalIndent(notesFile{notes}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", NotesName, err)
	}
	return append(text, '\n'), nil
}

func decodeNotes(text []byte) ([]string, error) {
	var f notesFile
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, &DamageError{Entry: NotesName, Reason: err.Error()}
	}
	return f.Notes, nil
}

// Source is where the data came from. It must not hold secrets.
type Source struct {
	Kind string `json:"kind"` // "local", "exec", "tar", "debug", "remote-read"
	Name string `json:"name"` // for a person
}

// Selection is what was asked for.
type Selection struct {
	MinTime     int64    `json:"minTime"` // included
	MaxTime     int64    `json:"maxTime"` // included
	From        string   `json:"from,omitempty"`
	To          string   `json:"to,omitempty"`
	Matchers    []string `json:"matchers,omitempty"` // PromQL selectors; a series that one of them selects was wanted
	Head        string   `json:"head"`               // "block", "raw" or "none"
	WholeBlocks bool     `json:"wholeBlocks,omitempty"`
}

// Plan is what the source had and what was to be taken of it.
type Plan struct {
	Blocks []PlannedBlock `json:"blocks"`
	Head   PlannedHead    `json:"head"`

	// LeftOut lists the blocks of the selection that the dump lacks, completely or in
	// part, because they could not be read.
	LeftOut []LeftOut `json:"leftOut,omitempty"`
	Notes   []string  `json:"notes,omitempty"`
}

// LeftOut is a block of the source that Prometheus cannot load, or that lacks
// samples.
type LeftOut struct {
	ULID    string `json:"ulid"`
	MinTime *int64 `json:"minTime,omitempty"` // included; nil: its meta.json cannot be read
	MaxTime *int64 `json:"maxTime,omitempty"` // excluded
	From    string `json:"from,omitempty"`
	To      string `json:"to,omitempty"`
	Reason  string `json:"reason"`
	Partly  bool   `json:"partly,omitempty"` // what could be read of it is in the dump
}

// PlannedBlock is one block of the source. A cut block has another ULID in the dump.
type PlannedBlock struct {
	ULID    string `json:"ulid"`
	MinTime int64  `json:"minTime"` // included
	MaxTime int64  `json:"maxTime"` // excluded, as in meta.json
	From    string `json:"from,omitempty"`
	To      string `json:"to,omitempty"`
	Action  string `json:"action"` // "whole", "cut" or "skip"
	Reason  string `json:"reason,omitempty"`
	Samples uint64 `json:"samples"` // of the source's block
	Series  uint64 `json:"series"`
	Bytes   int64  `json:"bytes"`
}

// PlannedHead is the source's head.
type PlannedHead struct {
	Mode  string `json:"mode"`  // "block", "raw" or "none"
	Bytes int64  `json:"bytes"` // of its files in the source
}

func (m Manifest) encode() ([]byte, error) {
	m.Format, m.Notes = Format, nil
	m.Selection.From, m.Selection.To = rfc3339(m.Selection.MinTime), rfc3339(m.Selection.MaxTime)
	m.Plan.Blocks = slices.Clone(m.Plan.Blocks)
	if m.Plan.Blocks == nil {
		m.Plan.Blocks = []PlannedBlock{}
	}
	for i := range m.Plan.Blocks {
		b := &m.Plan.Blocks[i]
		b.From, b.To = rfc3339(b.MinTime), rfc3339(b.MaxTime)
	}
	m.Plan.LeftOut = slices.Clone(m.Plan.LeftOut)
	for i := range m.Plan.LeftOut {
		if b := &m.Plan.LeftOut[i]; b.MinTime != nil && b.MaxTime != nil {
			b.From, b.To = rfc3339(*b.MinTime), rfc3339(*b.MaxTime)
		}
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", ManifestName, err)
	}
	return append(text, '\n'), nil
}

// rfc3339 is empty for times that RFC 3339 cannot say, such as the open end of a
// selection.
func rfc3339(ms int64) string {
	t := time.UnixMilli(ms).UTC()
	if t.Year() < 0 || t.Year() > 9999 {
		return ""
	}
	return t.Format("2006-01-02T15:04:05.999Z07:00")
}

// decodeManifest ignores fields that it does not know: within a format version
// they may be added. The version is looked at before anything else, for another
// one may have changed the rest.
func decodeManifest(text []byte) (Manifest, error) {
	var head struct {
		Format *int            `json:"format"`
		Tool   json.RawMessage `json:"tool"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return Manifest{}, &DamageError{Entry: ManifestName, Reason: err.Error()}
	}
	if head.Format == nil {
		return Manifest{}, &DamageError{Entry: ManifestName, Reason: "no format version"}
	}
	if *head.Format != Format {
		e := &FormatError{Format: *head.Format}
		if json.Unmarshal(head.Tool, &e.Tool) != nil {
			e.Tool = "an unknown tool"
		}
		return Manifest{}, e
	}
	var m Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return Manifest{}, &DamageError{Entry: ManifestName, Reason: err.Error()}
	}
	return m, nil
}
