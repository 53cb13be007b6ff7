// Package wire is what an agent and its client say to each other: the request,
// the messages of the story that is told of a data dir, and the frames that
// carry them over a stream of bytes.
//
// The messages are the contract between every source and its consumer, also
// where both are in one process and no byte is framed. See [Message] for their
// order.
//
// A stream begins with the eight bytes "promdump", a byte with the version and
// one with the [Codec]. With [Zstd] segments follow, each compressed or not, whose
// bytes together are the frames; with [Plain] the frames follow as they are:
//
//	kind     1 byte
//	length   uvarint, of the payload, at most MaxFrame
//	payload
//	checksum 4 bytes, CRC-32 (Castagnoli) of kind and payload, little endian
//
// Payloads of plans and of what begins and ends a part are JSON; those of
// symbols, series, records and file bytes are binary, see encode.go. The end of
// the stream means nothing: only an End message does, at whose end stand the
// number of frames before it (8 bytes) and the CRC-32 of their checksums (4).
// Keep-alive frames may come between any two others and say nothing.
//
// What is not promised: that a stream tells a story in its order. A decoder
// checks frames; who takes the messages checks their sense.
package wire
