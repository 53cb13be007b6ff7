package dump

import (
	"fmt"
	"strings"

	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/wire"
)

// Notes returns what the user should know about a finished dump, one sentence each.
func (r *Report) Notes() []string {
	var notes []string
	if r.Plan != nil {
		notes = append(notes, r.Plan.Notes...)
		if r.RawHead {
			return append(notes, DamageNotes(r.Plan.Head.Damage, 0, true)...)
		}
	}
	return append(notes, r.Head.Notes()...)
}

// Notes returns what the dump lacks of the head.
func (r *HeadReport) Notes() []string {
	notes := DamageNotes(r.Damage, r.MoreDamage, false)
	if n := UnknownSeriesNote(r.UnknownSamples, r.UnknownChunkSamples); n != "" {
		notes = append(notes, n)
	}
	if r.BadRecords > 0 {
		notes = append(notes, fmt.Sprintf("%s of the head's log left out, they cannot be decoded: %s",
			term.Counted(r.BadRecords, "record", "records"), r.BadRecord))
	}
	if r.BadChunks > 0 {
		notes = append(notes, fmt.Sprintf("%s left out, they cannot be decoded",
			term.Counted(r.BadChunks, "m-mapped chunk", "m-mapped chunks")))
	}
	if r.UnknownRecords > 0 {
		notes = append(notes, fmt.Sprintf("%s of the head's log left out: this version does not know their kind",
			term.Counted(r.UnknownRecords, "record", "records")))
	}
	return notes
}

// UnknownSeriesNote returns a note on the samples of a head without a series. It is
// empty if there are none.
func UnknownSeriesNote(samples, inChunks uint64) string {
	var what []string
	if samples > 0 {
		what = append(what, term.Counted(samples, "sample", "samples")+" in the log")
	}
	if inChunks > 0 {
		what = append(what, term.Counted(inChunks, "sample", "samples")+" in m-mapped chunks")
	}
	if len(what) == 0 {
		return ""
	}
	return "the head has " + strings.Join(what, " and ") +
		" without a series: the log lacks their series records, so their series are unknown; left out"
}

// DamageNotes returns notes on the damaged parts of a head. If raw is set, the dump is
// a copy of the files, and the notes say what a server does with it.
func DamageNotes(all []wire.HeadDamage, more uint64, raw bool) (notes []string) {
	for _, d := range all {
		text := fmt.Sprintf("the head is damaged: %s: %s", damagePlace(d), d.Reason)
		switch {
		case d.Fatal && raw:
			text += "; Prometheus will not start on this copy"
		case d.Fatal:
			text += "; Prometheus does not start on it"
		case raw:
			text += "; Prometheus will repair it when it starts, and drop what comes after"
		}
		notes = append(notes, text+lostTimes(d))
	}
	if more > 0 {
		notes = append(notes, fmt.Sprintf("the head is damaged in %s more", term.Counted(more, "place", "places")))
	}
	return notes
}

func damagePlace(d wire.HeadDamage) string {
	if d.Bytes == 0 {
		return d.File
	}
	return fmt.Sprintf("%s, %s at byte %d", d.File, term.Counted(d.Bytes, "byte", "bytes"), d.Offset)
}

// lostTimes returns the range of samples that may be lost.
func lostTimes(d wire.HeadDamage) string {
	switch {
	case d.After != 0 && d.Before != 0:
		// A log is not sorted by time.
		return fmt.Sprintf("; samples from %s to %s are lost, unless an m-mapped chunk has them",
			term.Time(min(d.After, d.Before)), term.Time(max(d.After, d.Before)))
	case d.After != 0:
		return fmt.Sprintf("; samples from %s on are lost, unless an m-mapped chunk has them", term.Time(d.After))
	case d.Before != 0:
		return fmt.Sprintf("; samples before %s are lost, unless an m-mapped chunk has them", term.Time(d.Before))
	}
	return ""
}
