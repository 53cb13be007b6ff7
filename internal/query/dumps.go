package query

import (
	"encoding/json"
	"net/http"

	"github.com/promdump/promdump/internal/archive"
)

// dumpsView is the answer of /api/promdump/v1/dumps, which the page uses in addition to
// the Prometheus API. Times are Unix milliseconds.
type dumpsView struct {
	Dumps   []dumpView `json:"dumps"`
	Label   string     `json:"label,omitempty"` // the label that has the dump's name, on each series
	MinTime int64      `json:"minTime"`
	MaxTime int64      `json:"maxTime"`
	Version string     `json:"version"`
	Rules   bool       `json:"rules"` // whether /api/promdump/v1/alerts has an answer
}

type dumpView struct {
	Name      string           `json:"name"`
	File      string           `json:"file"`
	Manifest  archive.Manifest `json:"manifest"`
	Verified  bool             `json:"verified"` // always true: other dumps are not opened
	SizeBytes int64            `json:"sizeBytes"`
	Blocks    []blockView      `json:"blocks"`
	MinTime   int64            `json:"minTime"` // times of the first and the last sample
	MaxTime   int64            `json:"maxTime"`
}

type blockView struct {
	ULID    string `json:"ulid"`
	MinTime int64  `json:"minTime"`
	MaxTime int64  `json:"maxTime"`
	Series  uint64 `json:"series"`
	Samples uint64 `json:"samples"`
	Chunks  uint64 `json:"chunks"`
	Bytes   int64  `json:"bytes"`
	Level   int    `json:"level"`
	Origin  string `json:"origin"`
}

func (s *Server) dumps(w http.ResponseWriter, _ *http.Request) {
	v := s.config.View
	all := dumpsView{Dumps: []dumpView{}, Label: v.Label, MinTime: v.MinTime, MaxTime: v.MaxTime, Version: s.config.Version, Rules: s.config.Rules != nil}
	if v.Empty() {
		all.MinTime, all.MaxTime = 0, 0
	}
	for _, d := range v.Dumps {
		one := dumpView{
			Name: d.Name, File: d.File, Manifest: d.Manifest, Verified: true, SizeBytes: d.FileBytes,
			Blocks: []blockView{}, MinTime: d.MinTime, MaxTime: d.MaxTime,
		}
		if len(d.Blocks) == 0 {
			one.MinTime, one.MaxTime = 0, 0
		}
		for _, b := range d.Blocks {
			m := b.Meta()
			one.Blocks = append(one.Blocks, blockView{
				ULID: m.ULID.String(), MinTime: b.FirstMs, MaxTime: b.LastMs, Series: m.Stats.NumSeries, Samples: m.Stats.NumSamples,
				Chunks: m.Stats.NumChunks, Bytes: b.Size(), Level: m.Compaction.Level, Origin: b.Origin,
			})
		}
		all.Dumps = append(all.Dumps, one)
	}
	w.Header().Set("Content-Type", "application/json")
	answer(w, all)
}

// answer writes v as JSON. Write errors are ignored: the client has disconnected.
func answer(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }
