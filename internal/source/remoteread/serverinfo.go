package remoteread

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/promdump/promdump/internal/promapi"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/wire"
)

// span is a closed range of time in Unix milliseconds.
type span struct{ min, max int64 }

func (s span) overlaps(minTime, maxTime int64) bool { return s.min <= maxTime && s.max >= minTime }

func (s span) String() string {
	return term.Time(s.min) + " to " + term.Time(s.max)
}

// known is what a server reports about itself. A recent Prometheus reports all of it;
// other and older servers report less. Unknown is not zero: a server that does not
// report what it holds is asked for every window.
type known struct {
	blocks      []promapi.Block
	blocksKnown bool

	head      promapi.HeadStats
	headKnown bool

	// Of its config.
	configKnown bool
	external    map[string]string // labels that it adds to each series
	outOfOrder  int64             // how far back samples may come late, in milliseconds
	backEnds    int               // servers that it reads from itself

	flags map[string]string // nil: not known
}

// know asks the server about itself.
func (se *session) know(ctx context.Context) (*known, error) {
	k := &known{}
	var config promapi.Config
	for _, part := range []struct {
		path  string
		ok    *bool
		parse func([]byte) error
	}{
		{promapi.HeadPath, &k.headKnown, func(b []byte) (err error) { k.head, err = promapi.Head(b); return err }},
		{promapi.BlocksPath, &k.blocksKnown, func(b []byte) (err error) { k.blocks, err = promapi.Blocks(b); return err }},
		{promapi.ConfigPath, &k.configKnown, func(b []byte) (err error) { config, err = readConfig(b); return err }},
		{promapi.FlagsPath, new(bool), func(b []byte) (err error) { k.flags, err = promapi.Flags(b); return err }},
	} {
		ok, err := se.get(ctx, part.path, nil, func(b []byte, _ http.Header) error { return part.parse(b) })
		if err != nil {
			return nil, err
		}
		*part.ok = ok
	}
	k.external, k.backEnds, k.outOfOrder = config.ExternalLabels, config.BackEnds, config.OutOfOrder.Milliseconds()
	se.p.remember(k.blocks)
	se.p.o.Logger.Debug("server", "head known", k.headKnown, "blocks known", k.blocksKnown, "blocks", len(k.blocks),
		"config known", k.configKnown, "external labels", k.external, "back ends", k.backEnds, "out of order", k.outOfOrder)
	return k, nil
}

// remember keeps what the server's blocks were made of.
func (p *pool) remember(blocks []promapi.Block) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blocks = map[string]bool{}
	for _, b := range blocks {
		for _, s := range b.Compaction.Sources {
			p.blocks[s] = true
		}
	}
}

// readConfig rejects a config that does not show the external labels.
func readConfig(b []byte) (promapi.Config, error) {
	c, err := promapi.ReadConfig(b)
	if err == nil && !c.Complete {
		err = &promapi.ShapeError{What: "a config without a global section"}
	}
	return c, err
}

// sameLabels returns an error if the server's external labels have changed since the
// read began.
func (se *session) sameLabels(ctx context.Context, k *known) error {
	var now promapi.Config
	ok, err := se.get(ctx, promapi.ConfigPath, nil, func(b []byte, _ http.Header) (err error) {
		now, err = readConfig(b)
		return err
	})
	if err != nil || !ok || !k.configKnown || maps.Equal(now.ExternalLabels, k.external) {
		return err
	}
	return &LabelsError{Was: list(k.external), Is: list(now.ExternalLabels)}
}

// bounded reports whether all samples of the server are in the ranges that it reports.
func (k *known) bounded() bool {
	return k.headKnown && k.blocksKnown && k.configKnown && k.backEnds == 0
}

// late is how long after the last sample we still look for newer ones.
const late = int64(time.Hour / time.Millisecond)

// holds reports whether the server may have samples in a range.
func (k *known) holds(r span) bool {
	if !k.bounded() {
		return true
	}
	if !k.head.Empty() {
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

// end returns a time, not before the end of the window, that no chunk of the server
// spans. A Prometheus that must cut a chunk there panics if a later part of the series
// was deleted (tombstones.Intervals.Add), and the answer breaks off. If the server does
// not list its blocks, end returns the end of the window.
func (k *known) end(r span) int64 {
	if !k.blocksKnown || !k.headKnown {
		return r.max
	}
	if !k.head.Empty() && r.max >= min(k.head.MinTime, k.head.MaxTime-k.outOfOrder) {
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
	if !k.head.Empty() && to >= min(k.head.MinTime, k.head.MaxTime-k.outOfOrder) {
		return math.MaxInt64
	}
	return to
}

// inventory leaves out what is not known.
func (k *known) inventory() (*wire.Inventory, error) {
	if !k.headKnown && !k.blocksKnown {
		return nil, &UnknownError{}
	}
	inv := &wire.Inventory{
		Blocks: k.plannedBlocks(), BlocksUnknown: !k.blocksKnown, HeadUnknown: !k.headKnown,
		Head: wire.HeadInventory{MinTime: k.head.MinTime, MaxTime: k.head.MaxTime, Series: k.head.Series, Bytes: -1},
	}
	if k.head.Empty() {
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

// owned returns the external labels that some series of a range may have themselves,
// with the same value. This part of the API adds no external labels.
func (se *session) owned(ctx context.Context, external map[string]string, r span) ([]string, error) {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(external)) {
		ok, some, err := se.series(ctx, map[string]string{name: external[name]}, r)
		if err != nil {
			return nil, err
		}
		if !ok || some {
			names = append(names, name)
		}
	}
	return names, nil
}

// series reports whether the server has series with these labels in a range.
func (se *session) series(ctx context.Context, labels map[string]string, r span) (ok, some bool, err error) {
	var ms []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		label := name
		if !model.LegacyValidation.IsValidLabelName(name) {
			label = strconv.Quote(name)
		}
		ms = append(ms, fmt.Sprintf("%s=~%s", label, strconv.Quote(regexp.QuoteMeta(labels[name]))))
	}
	q := url.Values{"limit": {"1"}, "match[]": {"{" + strings.Join(ms, ",") + "}"}}
	// In seconds; the API refuses times that are too far away.
	const most = 1 << 36
	if r.min > -most*1000 {
		q.Set("start", strconv.FormatInt(floorDiv(r.min, 1000), 10))
	}
	if r.max < most*1000 {
		q.Set("end", strconv.FormatInt(floorDiv(r.max, 1000)+1, 10))
	}
	var list []json.RawMessage
	ok, err = se.get(ctx, promapi.SeriesPath, q, func(b []byte, _ http.Header) (err error) {
		list, err = promapi.List(b)
		return err
	})
	return ok, len(list) > 0, err
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
