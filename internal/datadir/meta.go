package datadir

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
)

// maxMeta is the size limit of a meta.json, in bytes. The largest real ones have some
// hundred kilobytes: they list the sources of a block of many months.
const maxMeta = 16 << 20

// Meta has the fields that promdump uses of a block's meta.json.
type Meta struct {
	ULID    string `json:"ulid"`    // name of the block's directory; meta.json may name another
	MinTime int64  `json:"minTime"` // Unix milliseconds, inclusive
	MaxTime int64  `json:"maxTime"` // Unix milliseconds, exclusive
	Version int    `json:"version"`
	Stats   struct {
		Samples    uint64 `json:"numSamples"`
		Series     uint64 `json:"numSeries"`
		Chunks     uint64 `json:"numChunks"`
		Tombstones uint64 `json:"numTombstones"`
	} `json:"stats"`
	Compaction Compaction `json:"compaction"`

	named string // the ULID in meta.json
}

// Compaction describes how a block was created.
type Compaction struct {
	Level   int      `json:"level"`
	Sources []string `json:"sources"`
	Hints   []string `json:"hints"`

	// Parents are the ULIDs of the blocks that this block replaces. A server deletes
	// those that still exist.
	Parents []string `json:"-"`

	// parentsEnd is the lowest maxTime of the parents, in Unix milliseconds, or
	// math.MaxInt64 without parents.
	parentsEnd int64

	// Deletable is true if all samples of the block are deleted. A server deletes such
	// a block.
	Deletable bool `json:"deletable,omitempty"`
}

// notInOrder reports whether the block has other samples than all in-order ones of a time
// range of the head (tsdb/block.go: FromOutOfOrder, FromStaleSeries, FromSelectedSeries).
// The end of such a block is not the beginning of the head.
func (c Compaction) notInOrder() bool {
	return slices.ContainsFunc(c.Hints, func(h string) bool {
		return h == "from-out-of-order" || h == "from-stale-series" || h == "from-selected-series"
	})
}

// metaFile has the fields and types of tsdb.BlockMeta, which the agent must not link. A
// server rejects JSON that does not fit these types, and unknown versions (tsdb/block.go,
// readMetaFile). It accepts a maxTime before minTime, and a ULID that is missing or
// differs from the name of the directory.
type metaFile struct {
	ULID    ulid.ULID `json:"ulid"`
	MinTime int64     `json:"minTime"`
	MaxTime int64     `json:"maxTime"`
	Stats   struct {
		NumSamples          uint64 `json:"numSamples"`
		NumFloatSamples     uint64 `json:"numFloatSamples"`
		NumHistogramSamples uint64 `json:"numHistogramSamples"`
		NumSeries           uint64 `json:"numSeries"`
		NumChunks           uint64 `json:"numChunks"`
		NumTombstones       uint64 `json:"numTombstones"`
	} `json:"stats"`
	Compaction struct {
		Level     int         `json:"level"`
		Sources   []ulid.ULID `json:"sources"`
		Deletable bool        `json:"deletable"`
		Parents   []struct {
			ULID    ulid.ULID `json:"ulid"`
			MinTime int64     `json:"minTime"`
			MaxTime int64     `json:"maxTime"`
		} `json:"parents"`
		Failed bool     `json:"failed"`
		Hints  []string `json:"hints"`
	} `json:"compaction"`
	Version int `json:"version"`
}

// ParseMeta parses the contents b of the meta.json of the block in the directory name. It
// accepts what a server accepts, and version 2: Prometheus 2.1 wrote it, and servers
// repair it when they start.
func ParseMeta(name string, b []byte) (Meta, error) {
	var f metaFile
	if err := json.Unmarshal(b, &f); err != nil {
		return Meta{}, fmt.Errorf("parse meta.json: %w", err)
	}
	if f.Version != 1 && f.Version != 2 {
		return Meta{}, fmt.Errorf("meta.json has unknown version %d", f.Version)
	}
	m := Meta{ULID: name, MinTime: f.MinTime, MaxTime: f.MaxTime, Version: f.Version, named: f.ULID.String()}
	m.Stats.Samples, m.Stats.Series = f.Stats.NumSamples, f.Stats.NumSeries
	m.Stats.Chunks, m.Stats.Tombstones = f.Stats.NumChunks, f.Stats.NumTombstones
	m.Compaction.Level, m.Compaction.Hints = f.Compaction.Level, f.Compaction.Hints
	m.Compaction.Deletable = f.Compaction.Deletable
	for _, s := range f.Compaction.Sources {
		m.Compaction.Sources = append(m.Compaction.Sources, s.String())
	}
	m.Compaction.parentsEnd = math.MaxInt64
	for _, p := range f.Compaction.Parents {
		m.Compaction.Parents = append(m.Compaction.Parents, p.ULID.String())
		if p.ULID != (ulid.ULID{}) { // servers name the head so
			m.Compaction.parentsEnd = min(m.Compaction.parentsEnd, p.MaxTime)
		}
	}
	return m, nil
}

// repaired returns the text of the meta.json for a dump, or nil if b needs no change. It
// sets version 1, like a server that starts on version 2 (tsdb/repair.go), and the ULID
// to the name of the directory.
func (m Meta) repaired(b []byte) ([]byte, error) {
	if m.Version == 1 && m.named == m.ULID {
		return nil, nil
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &fields); err != nil {
		return nil, fmt.Errorf("parse meta.json: %w", err)
	}
	for key := range fields { // JSON keys are matched without regard to case
		if strings.EqualFold(key, "version") || strings.EqualFold(key, "ulid") {
			delete(fields, key)
		}
	}
	fields["version"] = json.RawMessage("1")
	fields["ulid"] = json.RawMessage(`"` + m.ULID + `"`)
	text, err := json.MarshalIndent(fields, "", "\t")
	if err != nil {
		return nil, fmt.Errorf("encode meta.json: %w", err)
	}
	return append(bytes.TrimSpace(text), '\n'), nil
}
