package dump

import (
	"github.com/promdump/promdump/internal/block"
	"github.com/promdump/promdump/internal/wire"
)

// HeadReport counts what the dump lacks of the head.
type HeadReport struct {
	// Samples, in the logs and in m-mapped chunks, whose series no series record
	// names: the record was lost with a part of the log. The same sample may be in
	// both.
	UnknownSamples, UnknownChunkSamples uint64

	UnknownRecords uint64 // of kinds that this version cannot read
	BadRecords     uint64 // that do not decode
	BadRecord      string // the error of the first of them
	BadChunks      uint64 // m-mapped chunks that cannot be decoded

	Damage     []wire.HeadDamage // parts of the files that cannot be read; the first ones
	MoreDamage uint64
}

func newHeadReport(m *wire.HeadEnd, ignored block.HeadIgnored) HeadReport {
	r := HeadReport{
		UnknownSamples:      m.UnknownSamples + ignored.UnknownSeries,
		UnknownChunkSamples: m.UnknownChunkSamples + ignored.UnknownChunks,
		UnknownRecords:      m.UnknownRecords,
		BadRecords:          m.BadRecords + ignored.BadRecords,
		BadRecord:           m.BadRecord,
		BadChunks:           ignored.BadChunks,
		Damage:              m.Damage,
		MoreDamage:          m.MoreDamage,
	}
	if r.BadRecord == "" && ignored.BadRecord != nil {
		r.BadRecord = ignored.BadRecord.Error()
	}
	return r
}

// lossy reports whether samples of the head may be lost.
func (r HeadReport) lossy() bool {
	return len(r.Damage) > 0 || r.UnknownSamples+r.UnknownChunkSamples+r.UnknownRecords+r.BadRecords+r.BadChunks > 0
}
