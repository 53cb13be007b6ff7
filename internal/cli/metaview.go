package cli

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/wire"
)

// metaView is what meta tells, in the form that -o json prints. Times are told
// twice: minTime and maxTime in Unix milliseconds, from and to in RFC 3339.
type metaView struct {
	Source     string          `json:"source"`
	Dump       *dumpView       `json:"dump,omitempty"`
	Persistent *persistentView `json:"persistentBlocks,omitempty"` // of a server: not known
	Head       *headView       `json:"head,omitempty"`             // a dump may have none; of a server: not known
	Blocks     []blockView     `json:"blocks,omitempty"`
	Unknown    []string        `json:"unknown,omitempty"` // which of head and persistentBlocks the server does not report
	LeftOut    []leftOutView   `json:"leftOut,omitempty"` // blocks of the source that the dump lacks, also in part
	Notes      []string        `json:"notes,omitempty"`
}

// rangeView has no times when there is nothing.
type rangeView struct {
	MinTime *int64 `json:"minTime,omitempty"`
	MaxTime *int64 `json:"maxTime,omitempty"` // of blocks: not included
	From    string `json:"from,omitempty"`
	To      string `json:"to,omitempty"`
}

func newRange(minMs, maxMs int64) rangeView {
	return rangeView{&minMs, &maxMs, term.Time(minMs), term.Time(maxMs)}
}

type persistentView struct {
	rangeView
	Blocks  int    `json:"blocks"`
	Samples uint64 `json:"samples"`
	Series  uint64 `json:"series"` // summed over the blocks
	Bytes   *int64 `json:"bytes,omitempty"`
}

type headView struct {
	rangeView
	Series uint64 `json:"series"`
	Bytes  *int64 `json:"bytes,omitempty"` // of its logs
}

type blockView struct {
	ULID string `json:"ulid"`
	rangeView
	Series     uint64   `json:"series"`
	Samples    uint64   `json:"samples"`
	Chunks     uint64   `json:"chunks"`
	Bytes      *int64   `json:"bytes,omitempty"`
	Level      int      `json:"level"`
	Sources    int      `json:"sources"`
	Tombstones uint64   `json:"tombstones"`
	Hints      []string `json:"hints,omitempty"`
}

// leftOutView is a block that cannot be read completely.
type leftOutView struct {
	ULID string `json:"ulid"`
	rangeView
	Reason string `json:"reason"`
	Partly bool   `json:"partly,omitempty"`
}

func newLeftOutView(ulid string, minMs, maxMs *int64, reason string, partly bool) leftOutView {
	v := leftOutView{ULID: ulid, Reason: reason, Partly: partly}
	if minMs != nil && maxMs != nil {
		v.rangeView = newRange(*minMs, *maxMs)
	}
	return v
}

type dumpView struct {
	Format      int       `json:"format"`
	Tool        string    `json:"tool"`
	Created     time.Time `json:"created"`
	SourceKind  string    `json:"sourceKind"`
	SourceName  string    `json:"sourceName"`
	Selection   rangeView `json:"selection"`
	Matchers    []string  `json:"matchers,omitempty"`
	Head        string    `json:"head"`
	WholeBlocks bool      `json:"wholeBlocks,omitempty"`
}

func newMetaView(source string, inv *wire.Inventory) metaView {
	v := metaView{Source: source, Notes: inv.Notes}
	for _, b := range inv.LeftOut {
		v.LeftOut = append(v.LeftOut, newLeftOutView(b.ULID, b.MinTime, b.MaxTime, b.Reason, b.Partly))
	}
	if inv.HeadUnknown {
		v.Unknown = append(v.Unknown, unknownHead)
	}
	if inv.BlocksUnknown {
		v.Unknown = append(v.Unknown, unknownBlocks)
	}
	if inv.BlocksUnknown {
		return v
	}
	v.Blocks = []blockView{}
	p := &persistentView{Bytes: new(int64)}
	v.Persistent = p
	for i, b := range inv.Blocks {
		v.Blocks = append(v.Blocks, blockView{
			ULID: b.ULID, rangeView: newRange(b.MinTime, b.MaxTime), Series: b.Series, Samples: b.Samples, Chunks: b.Chunks,
			Bytes: known(b.Bytes), Level: b.Level, Sources: len(b.Sources), Tombstones: b.Tombstones, Hints: b.Hints,
		})
		if i == 0 {
			p.rangeView = newRange(b.MinTime, b.MaxTime)
		} else {
			p.rangeView = newRange(min(*p.MinTime, b.MinTime), max(*p.MaxTime, b.MaxTime))
		}
		p.Blocks++
		p.Samples += b.Samples
		p.Series += b.Series
		if b.Bytes < 0 {
			p.Bytes = nil
		} else if p.Bytes != nil {
			*p.Bytes += b.Bytes
		}
	}
	return v
}

// Names in metaView.Unknown.
const (
	unknownHead   = "head"
	unknownBlocks = "persistentBlocks"
)

// unknownFacts is printed in place of facts that a server does not report.
func unknownFacts() []term.Fact {
	return []term.Fact{{Name: "Earliest time:", Value: "unknown, the server does not say"}}
}

// known is nil for a size that is not.
func known(bytes int64) *int64 {
	if bytes < 0 {
		return nil
	}
	return &bytes
}

// addHead adds the head, and notes on the parts that cannot be read.
func (v *metaView) addHead(h wire.HeadInventory) {
	v.Head = newHeadView(h)
	v.Notes = append(v.Notes, dump.DamageNotes(h.Damage, h.MoreDamage, false)...)
	if n := dump.UnknownSeriesNote(h.UnknownSamples, h.UnknownChunkSamples); n != "" {
		v.Notes = append(v.Notes, n)
	}
}

func newHeadView(h wire.HeadInventory) *headView {
	v := &headView{Series: h.Series, Bytes: known(h.Bytes)}
	if h.MinTime <= h.MaxTime && h.Series > 0 {
		v.rangeView = newRange(h.MinTime, h.MaxTime)
	}
	return v
}

// dumpNotes returns the notes that were recorded when a dump was written.
func dumpNotes(m archive.Manifest) (notes []string) {
	for _, n := range slices.Concat(m.Plan.Notes, m.Notes) {
		notes = append(notes, "when it was dumped: "+n)
	}
	return notes
}

func newDumpView(m archive.Manifest) *dumpView {
	return &dumpView{
		Format: m.Format, Tool: m.Tool, Created: utc(m.Created), SourceKind: m.Source.Kind, SourceName: m.Source.Name,
		Selection: newRange(m.Selection.MinTime, m.Selection.MaxTime), Matchers: m.Selection.Matchers,
		Head: m.Selection.Head, WholeBlocks: m.Selection.WholeBlocks,
	}
}

func printMeta(w io.Writer, v metaView, wide bool) error {
	if v.Dump != nil {
		if err := term.Facts(w, "Dump", dumpFacts(v.Dump)); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	if err := term.Facts(w, "Head Block Metadata", headFacts(v)); err != nil {
		return err
	}
	fmt.Fprintln(w)
	blocks := unknownFacts()
	if v.Persistent != nil {
		blocks = persistentFacts(*v.Persistent)
	}
	if err := term.Facts(w, "Persistent Blocks Metadata", blocks); err != nil {
		return err
	}
	if wide && len(v.Blocks) > 0 {
		fmt.Fprintln(w)
		if err := term.Table(w, blockColumns(), blockRows(v.Blocks)); err != nil {
			return err
		}
	}
	if len(v.LeftOut) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, b := range v.LeftOut {
		rows = append(rows, []string{b.ULID, b.From, b.To, b.Reason})
	}
	return term.Table(w, []term.Column{{Name: "CANNOT BE READ"}, {Name: "FROM"}, {Name: "UNTIL"}, {Name: "REASON"}}, rows)
}

// sizeFact is no row where the size is not known.
func sizeFact(name string, n *int64) []term.Fact {
	if n == nil {
		return nil
	}
	return []term.Fact{{Name: name, Value: fmt.Sprintf("%d (%s)", *n, term.Bytes(*n))}}
}

func sizeCell(n *int64) string {
	if n == nil {
		return ""
	}
	return term.Bytes(*n)
}

func dumpFacts(d *dumpView) []term.Fact {
	series := "all"
	if len(d.Matchers) > 0 {
		series = strings.Join(d.Matchers, " or ")
	}
	blocks := "cut to the selection"
	if d.WholeBlocks {
		blocks = "whole (--whole-blocks)"
	}
	return []term.Fact{
		{Name: "Source:", Value: fmt.Sprintf("%s (%s)", d.SourceName, d.SourceKind)},
		{Name: "Created:", Value: term.Time(d.Created.UnixMilli())},
		{Name: "Written by:", Value: fmt.Sprintf("%s, format %d", d.Tool, d.Format)},
		{Name: "Asked from:", Value: d.Selection.From},
		{Name: "Asked to:", Value: d.Selection.To},
		{Name: "Asked series:", Value: series},
		{Name: "Asked blocks:", Value: blocks},
		{Name: "Asked head:", Value: d.Head},
	}
}

func headFacts(v metaView) []term.Fact {
	switch {
	case v.Head != nil && v.Head.MinTime != nil:
		return append([]term.Fact{
			{Name: "Earliest time:", Value: v.Head.From},
			{Name: "Latest time:", Value: v.Head.To},
			{Name: "Number of series", Value: strconv.FormatUint(v.Head.Series, 10)},
		}, sizeFact("Size of its files", v.Head.Bytes)...)
	case slices.Contains(v.Unknown, unknownHead):
		return unknownFacts()
	case v.Head != nil:
		return append([]term.Fact{{Name: "Earliest time:", Value: "none, it has no samples"}}, sizeFact("Size of its files", v.Head.Bytes)...)
	case v.Dump.Head == string(wire.HeadNone):
		return []term.Fact{{Name: "Earliest time:", Value: "none, it was left out"}}
	default:
		return []term.Fact{{Name: "Earliest time:", Value: "none, its samples are in the blocks below"}}
	}
}

func persistentFacts(p persistentView) []term.Fact {
	if p.Blocks == 0 {
		return []term.Fact{{Name: "Total number of blocks", Value: "0 (there are no blocks yet)"}}
	}
	return append([]term.Fact{
		{Name: "Earliest time:", Value: p.From},
		{Name: "Latest time:", Value: p.To},
		{Name: "Total number of blocks", Value: strconv.Itoa(p.Blocks)},
		{Name: "Total number of samples", Value: strconv.FormatUint(p.Samples, 10)},
		{Name: "Total number of series", Value: strconv.FormatUint(p.Series, 10)},
	}, sizeFact("Total size", p.Bytes)...)
}

func blockColumns() []term.Column {
	return []term.Column{
		{Name: "BLOCK"}, {Name: "FROM"}, {Name: "UNTIL"}, {Name: "SERIES", Right: true}, {Name: "SAMPLES", Right: true},
		{Name: "CHUNKS", Right: true}, {Name: "SIZE", Right: true}, {Name: "LEVEL", Right: true}, {Name: "SOURCES", Right: true},
		{Name: "TOMBSTONES", Right: true}, {Name: "HINTS"},
	}
}

func blockRows(blocks []blockView) [][]string {
	var rows [][]string
	for _, b := range blocks {
		rows = append(rows, []string{
			b.ULID, b.From, b.To, term.Count(b.Series), term.Count(b.Samples), term.Count(b.Chunks), sizeCell(b.Bytes),
			strconv.Itoa(b.Level), strconv.Itoa(b.Sources), term.Count(b.Tombstones), strings.Join(b.Hints, ","),
		})
	}
	return rows
}
