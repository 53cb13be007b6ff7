package restore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// meta is what restoring needs to know of a meta.json
// (prometheus/tsdb/docs/format, type BlockMeta). Times are Unix milliseconds.
type meta struct {
	ULID    string `json:"ulid"`
	MinTime int64  `json:"minTime"`
	MaxTime int64  `json:"maxTime"` // excluded
	Stats   struct {
		Samples    uint64 `json:"numSamples"`
		Series     uint64 `json:"numSeries"`
		Tombstones uint64 `json:"numTombstones"`
	} `json:"stats"`
	Compaction struct {
		Level   int      `json:"level"`
		Sources []string `json:"sources"`
		Hints   []string `json:"hints"`
		Parents []struct {
			ULID string `json:"ulid"`
		} `json:"parents"`
	} `json:"compaction"`
	Thanos  json.RawMessage `json:"thanos"`
	Version int             `json:"version"`
}

const metaName = "meta.json"

func readMeta(dir string) (*meta, error) {
	b, err := os.ReadFile(filepath.Join(dir, metaName))
	if err != nil {
		return nil, err
	}
	m := new(meta)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, metaName), err)
	}
	if m.Version != 1 {
		return nil, fmt.Errorf("%s has version %d, expected 1", filepath.Join(dir, metaName), m.Version)
	}
	return m, nil
}

// The hints of a restored block; the package's comment says why.
const (
	fromOutOfOrder  = "from-out-of-order"
	fromStaleSeries = "from-stale-series"
)

// adopt makes a block's meta.json fit for a foreign data dir.
func adopt(dir string) error {
	return editMeta(dir, func(_, compaction map[string]any) error {
		hints, ok := compaction["hints"].([]any)
		if !ok && compaction["hints"] != nil {
			return errors.New("compaction.hints is not a list")
		}
		for _, hint := range []string{fromOutOfOrder, fromStaleSeries} {
			if !slices.Contains(hints, any(hint)) {
				hints = append(hints, hint)
			}
		}
		compaction["hints"] = hints
		delete(compaction, "parents")
		delete(compaction, "deletable") // the server would delete the block at once
		return nil
	})
}

// editMeta changes a meta.json through plain JSON values, so that fields which
// only a newer Prometheus knows survive.
func editMeta(dir string, edit func(meta, compaction map[string]any) error) error {
	name := filepath.Join(dir, metaName)
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber() // a float64 cannot hold every int64
	var m map[string]any
	if err := dec.Decode(&m); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	compaction, ok := m["compaction"].(map[string]any)
	if !ok {
		return fmt.Errorf("%s has no compaction section", name)
	}
	if err := edit(m, compaction); err != nil {
		return fmt.Errorf("change %s: %w", name, err)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	if err := enc.Encode(m); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.WriteFile(name+".tmp", out.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}
