package remoteread

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"sigs.k8s.io/yaml"

	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/wire"
)

// span is a closed range of time in Unix milliseconds.
type span struct{ min, max int64 }

func (s span) overlaps(minTime, maxTime int64) bool { return s.min <= maxTime && s.max >= minTime }

func (s span) String() string {
	return term.Time(s.min) + " to " + term.Time(s.max)
}

// known is what a server tells of itself. Prometheus tells all of it; others, and
// older ones, less.
type known struct {
	blocks      []blockMeta
	blocksKnown bool

	head      headStats
	headKnown bool

	// Of its config.
	configKnown bool
	external    map[string]string // labels that it puts on each series
	outOfOrder  int64             // how far back samples may come late, in milliseconds
	backEnds    int               // servers that it reads from itself

	flags map[string]string // nil: not known
}

type blockMeta struct {
	ULID    string `json:"ulid"`
	MinTime int64  `json:"minTime"`
	MaxTime int64  `json:"maxTime"` // excluded
	Stats   struct {
		Samples    uint64 `json:"numSamples"`
		Series     uint64 `json:"numSeries"`
		Chunks     uint64 `json:"numChunks"`
		Tombstones uint64 `json:"numTombstones"`
	} `json:"stats"`
	Compaction struct {
		Level   int      `json:"level"`
		Sources []string `json:"sources"`
		Hints   []string `json:"hints"`
	} `json:"compaction"`
}

type headStats struct {
	Series  uint64 `json:"numSeries"`
	Chunks  int64  `json:"chunkCount"`
	MinTime int64  `json:"minTime"`
	MaxTime int64  `json:"maxTime"` // included
}

// empty: Prometheus says so by a first time that comes after the last.
func (h headStats) empty() bool { return h.Series == 0 || h.MinTime > h.MaxTime }

// know asks the server what it tells of itself.
func (s *Source) know(ctx context.Context) (*known, error) {
	k := &known{}
	var status struct {
		Head headStats `json:"headStats"`
	}
	var err error
	if k.headKnown, err = s.get(ctx, "/api/v1/status/tsdb", nil, &status); err != nil {
		return nil, unreachable(s.String(), err)
	}
	k.head = status.Head
	var blocks struct {
		Blocks *[]blockMeta `json:"blocks"` // null where there are none
	}
	if k.blocksKnown, err = s.get(ctx, "/api/v1/status/tsdb/blocks", nil, &blocks); err != nil {
		return nil, err
	}
	if blocks.Blocks != nil {
		k.blocks = *blocks.Blocks
		slices.SortFunc(k.blocks, func(a, b blockMeta) int { return int(min(max(a.MinTime-b.MinTime, -1), 1)) })
	}
	if err := s.knowConfig(ctx, k); err != nil {
		return nil, err
	}
	if _, err := s.get(ctx, "/api/v1/status/flags", nil, &k.flags); err != nil {
		return nil, err
	}
	s.o.Logger.Debug("server", "head known", k.headKnown, "blocks known", k.blocksKnown, "blocks", len(k.blocks), "config known", k.configKnown,
		"external labels", k.external, "back ends", k.backEnds, "out of order", k.outOfOrder)
	return k, nil
}

func (s *Source) knowConfig(ctx context.Context, k *known) error {
	var text struct {
		YAML string `json:"yaml"`
	}
	ok, err := s.get(ctx, "/api/v1/status/config", nil, &text)
	if err != nil || !ok {
		return err
	}
	var config struct {
		Global struct {
			ExternalLabels map[string]string `json:"external_labels"`
		} `json:"global"`
		RemoteRead []any `json:"remote_read"`
		Storage    struct {
			TSDB struct {
				Window string `json:"out_of_order_time_window"`
			} `json:"tsdb"`
		} `json:"storage"`
	}
	if err := yaml.Unmarshal([]byte(text.YAML), &config); err != nil {
		s.o.Logger.Debug("the server's config cannot be read", "error", err)
		return nil // not known
	}
	k.configKnown = true
	k.external = config.Global.ExternalLabels
	k.backEnds = len(config.RemoteRead)
	if w := config.Storage.TSDB.Window; w != "" {
		if d, err := model.ParseDuration(w); err == nil {
			k.outOfOrder = time.Duration(d).Milliseconds()
		} else {
			k.configKnown = false
		}
	}
	return nil
}

// bounded tells whether the server's samples cannot be anywhere but where it says.
func (k *known) bounded() bool {
	return k.headKnown && k.blocksKnown && k.configKnown && k.backEnds == 0
}

// late is how long after the last sample we still look for newer ones.
const late = int64(time.Hour / time.Millisecond)

// holds tells whether the server may have samples of a range.
func (k *known) holds(r span) bool {
	if !k.bounded() {
		return true
	}
	if !k.head.empty() {
		// Out-of-order samples may be older than the head says.
		from := min(k.head.MinTime, k.head.MaxTime-k.outOfOrder)
		if r.overlaps(from, k.head.MaxTime+late) {
			return true
		}
	}
	for _, b := range k.blocks {
		if r.overlaps(b.MinTime, b.MaxTime-1) {
			return true
		}
	}
	return false
}

// end is a time at or after that of a window where no chunk of the server reaches
// across. A Prometheus that must cut a chunk there panics when a later part of the
// series was deleted (tombstones.Intervals.Add), and the answer just breaks off. Of
// a server that does not tell its blocks nothing better is known than the window.
func (k *known) end(r span) int64 {
	if !k.blocksKnown || !k.headKnown {
		return r.max
	}
	if !k.head.empty() && r.max >= min(k.head.MinTime, k.head.MaxTime-k.outOfOrder) {
		return math.MaxInt64 // the head's last chunk of a series has no end
	}
	to := r.max
	for again := true; again; {
		again = false
		for _, b := range k.blocks {
			if b.MinTime <= to && b.MaxTime-1 > to {
				to, again = b.MaxTime-1, true
			}
		}
	}
	if !k.head.empty() && to >= min(k.head.MinTime, k.head.MaxTime-k.outOfOrder) {
		return math.MaxInt64
	}
	return to
}

// inventory leaves out what is not known.
func (k *known) inventory() (*wire.Inventory, error) {
	if !k.headKnown && !k.blocksKnown {
		return nil, &ServerError{
			What: "the server tells neither its head (/api/v1/status/tsdb) nor its blocks (/api/v1/status/tsdb/blocks)",
			Tip:  "what it holds of a range is told by a dump; is the URL that of a Prometheus, with its path prefix?", Code: 10,
		}
	}
	inv := &wire.Inventory{
		Blocks: k.plannedBlocks(), BlocksUnknown: !k.blocksKnown, HeadUnknown: !k.headKnown,
		Head: wire.HeadInventory{MinTime: k.head.MinTime, MaxTime: k.head.MaxTime, Series: k.head.Series, Bytes: -1},
	}
	if k.head.empty() {
		inv.Head.MinTime, inv.Head.MaxTime = 1, 0
	}
	if !k.blocksKnown {
		inv.Notes = append(inv.Notes, "this server does not list its blocks: Prometheus does from 3.6 on")
	}
	if text := k.flags["storage.tsdb.retention.time"]; text != "" && text != "0s" {
		inv.Notes = append(inv.Notes, "the server's flags let it keep samples for "+text)
	}
	return inv, nil
}

func (k *known) plannedBlocks() []wire.PlannedBlock {
	var all []wire.PlannedBlock
	for _, b := range k.blocks {
		all = append(all, wire.PlannedBlock{
			ULID: b.ULID, MinTime: b.MinTime, MaxTime: b.MaxTime, Samples: b.Stats.Samples, Series: b.Stats.Series, Chunks: b.Stats.Chunks,
			Tombstones: b.Stats.Tombstones, Level: b.Compaction.Level, Sources: b.Compaction.Sources, Hints: b.Compaction.Hints, Bytes: -1,
		})
	}
	return all
}

// owned gives the external labels that some series of a range may have themselves,
// with the same value. This part of the API adds none.
func (s *Source) owned(ctx context.Context, external map[string]string, r span) ([]string, error) {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(external)) {
		label := name
		if !model.LegacyValidation.IsValidLabelName(name) {
			label = strconv.Quote(name)
		}
		q := url.Values{"limit": {"1"}, "match[]": {fmt.Sprintf("{%s=~%s}", label, strconv.Quote(regexp.QuoteMeta(external[name])))}}
		// In seconds; the API refuses times that are too far away.
		const most = 1 << 36
		if r.min > -most*1000 {
			q.Set("start", strconv.FormatInt(floorDiv(r.min, 1000), 10))
		}
		if r.max < most*1000 {
			q.Set("end", strconv.FormatInt(floorDiv(r.max, 1000)+1, 10))
		}
		var some []json.RawMessage
		ok, err := s.get(ctx, "/api/v1/series", q, &some)
		if err != nil {
			return nil, err
		}
		if !ok || len(some) > 0 {
			names = append(names, name)
		}
	}
	return names, nil
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// get reads the data of an answer of Prometheus' HTTP API. ok: the server has that
// part of it.
func (s *Source) get(ctx context.Context, path string, q url.Values, data any) (ok bool, err error) {
	err = s.again(ctx, path, func() (err error) {
		ok, err = s.getOnce(ctx, path, q, data)
		return err
	})
	return ok, err
}

func (s *Source) getOnce(ctx context.Context, path string, q url.Values, data any) (ok bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.o.times.stall, errStall)
	defer cancel()
	req, err := s.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return false, err
	}
	req.URL.RawQuery = q.Encode()
	resp, err := s.client.Do(req)
	if err != nil {
		return false, transportError(ctx, err)
	}
	s.met.Store(true)
	defer resp.Body.Close()
	defer drain(resp.Body)
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return false, transportError(ctx, err)
	}
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized, code/100 == 3, code == http.StatusTooManyRequests,
		code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		err := statusError(resp, string(body), path)
		if tm, ok := errors.AsType[*tooMuch](err); ok {
			err = &broken{err: tm.err}
		}
		return false, err
	case code != http.StatusOK:
		// Others have other APIs, and gateways let just some of it through.
		s.o.Logger.Debug("not told", "path", path, "status", resp.Status)
		return false, nil
	}
	answer := struct {
		Status string          `json:"status"`
		Data   json.RawMessage `json:"data"`
	}{}
	if json.Unmarshal(body, &answer) != nil || answer.Status != "success" || json.Unmarshal(answer.Data, data) != nil {
		s.o.Logger.Debug("not told as by a Prometheus", "path", path)
		return false, nil
	}
	return true, nil
}
