package query

import (
	"errors"
	"io"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/jsonutil"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// encodeBuffer is how many bytes of an answer are buffered while it is written.
const encodeBuffer = 1 << 15

// encode writes the same bytes as v1.JSONCodec, but piece by piece, so that an answer of
// some hundred megabytes is never in memory as text. It returns the first error of w.
func encode(w io.Writer, r *v1.Response) error {
	e := &encoder{jsoniter.NewStream(jsoniter.ConfigCompatibleWithStandardLibrary, w, encodeBuffer)}
	e.response(r)
	if e.Error == nil {
		e.Error = e.Flush()
	}
	return e.Error
}

type encoder struct{ *jsoniter.Stream }

// spill writes the buffer once it is full. It reports whether to continue.
func (e *encoder) spill() bool {
	if e.Error == nil && e.Buffered() >= encodeBuffer/2 {
		e.Error = e.Flush()
	}
	return e.Error == nil
}

func (e *encoder) response(r *v1.Response) {
	var data func()
	switch d := r.Data.(type) {
	case *v1.QueryData:
		data = func() { e.queryData(d) }
	case []labels.Labels: // /series
		data = func() { array(e, d, func(ls labels.Labels) { e.WriteVal(ls) }) }
	case []string: // names and values of labels
		data = func() { array(e, d, func(s string) { e.WriteVal(s) }) }
	}
	if data == nil || r.ErrorType != "" || r.Error != "" {
		e.WriteVal(r)
		return
	}
	e.WriteObjectStart()
	e.WriteObjectField("status")
	e.WriteVal(r.Status)
	e.WriteMore()
	e.WriteObjectField("data")
	data()
	for _, list := range []struct {
		field  string
		values []string
	}{{"warnings", r.Warnings}, {"infos", r.Infos}} {
		if len(list.values) > 0 {
			e.WriteMore()
			e.WriteObjectField(list.field)
			e.WriteVal(list.values)
		}
	}
	e.WriteObjectEnd()
}

func array[T any](e *encoder, all []T, write func(T)) {
	e.WriteArrayStart()
	for i, v := range all {
		if i > 0 {
			e.WriteMore()
		}
		write(v)
		if !e.spill() {
			return
		}
	}
	e.WriteArrayEnd()
}

func (e *encoder) queryData(d *v1.QueryData) {
	e.WriteObjectStart()
	e.WriteObjectField("resultType")
	e.WriteVal(d.ResultType)
	e.WriteMore()
	e.WriteObjectField("result")
	switch v := d.Result.(type) {
	case promql.Matrix:
		array(e, v, e.series)
	case promql.Vector:
		array(e, v, func(s promql.Sample) { e.WriteVal(s) })
	default:
		e.WriteVal(v)
	}
	if d.Stats != nil {
		e.WriteMore()
		e.WriteObjectField("stats")
		e.WriteVal(d.Stats)
	}
	e.WriteObjectEnd()
}

func (e *encoder) series(s promql.Series) {
	e.WriteObjectStart()
	e.WriteObjectField("metric")
	e.WriteVal(s.Metric)
	if len(s.Floats) > 0 {
		e.WriteMore()
		e.WriteObjectField("values")
		array(e, s.Floats, func(p promql.FPoint) {
			e.WriteArrayStart()
			jsonutil.MarshalTimestamp(p.T, e.Stream)
			e.WriteMore()
			jsonutil.MarshalFloat(p.F, e.Stream)
			e.WriteArrayEnd()
		})
	}
	if len(s.Histograms) > 0 {
		e.WriteMore()
		e.WriteObjectField("histograms")
		array(e, s.Histograms, func(p promql.HPoint) {
			e.WriteArrayStart()
			jsonutil.MarshalTimestamp(p.T, e.Stream)
			e.WriteMore()
			jsonutil.MarshalHistogram(p.H, e.Stream)
			e.WriteArrayEnd()
		})
	}
	e.WriteObjectEnd()
}

// mayExceed reports whether a response may be longer than n bytes, without encoding it.
func mayExceed(r *v1.Response, n int64) bool {
	const point, name = 64, 6 // bytes: of a float with its time; of a character, escaped
	var size int64
	switch d := r.Data.(type) {
	case []labels.Labels:
		for _, ls := range d {
			size += name*int64(ls.ByteSize()) + point
		}
	case []string:
		for _, s := range d {
			size += name*int64(len(s)) + point
		}
	case *v1.QueryData:
		switch v := d.Result.(type) {
		case promql.Matrix:
			for _, s := range v {
				size += name*int64(s.Metric.ByteSize()) + point*int64(1+len(s.Floats))
				for _, p := range s.Histograms {
					size += bucketJSON * int64(p.H.Size())
				}
			}
		case promql.Vector:
			for _, s := range v {
				size += name*int64(s.Metric.ByteSize()) + 2*point
				if s.H != nil {
					size += bucketJSON * int64(s.H.Size())
				}
			}
		}
	}
	return size > n
}

// bucketJSON is the factor by which a histogram is longer as text than in memory.
const bucketJSON = 24

// limited is a writer that counts bytes, and fails beyond a limit.
type limited struct{ left int64 }

var errTooLong = errors.New("the answer is too long")

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= int64(len(p)); l.left < 0 {
		return 0, errTooLong
	}
	return len(p), nil
}
