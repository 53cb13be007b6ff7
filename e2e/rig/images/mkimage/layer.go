package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
)

// layer is a tar of files. Directories above a file are made with it.
type layer struct {
	buf  bytes.Buffer
	tar  *tar.Writer
	made map[string]bool
	blob *descriptor // once an image has it
}

func newLayer() *layer {
	l := &layer{made: map[string]bool{".": true}}
	l.tar = tar.NewWriter(&l.buf)
	return l
}

func (l *layer) add(words []string) error {
	number := func(i, base int, otherwise int64) (int64, error) {
		if len(words) <= i {
			return otherwise, nil
		}
		return strconv.ParseInt(words[i], base, 32)
	}
	switch {
	case words[0] == "file" && len(words) >= 3:
		mode, err := number(3, 8, 0o755)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(words[1])
		if err != nil {
			return err
		}
		if err := l.entry(tar.Header{Typeflag: tar.TypeReg, Name: words[2], Mode: mode, Size: int64(len(b))}); err != nil {
			return err
		}
		_, err = l.tar.Write(b)
		return err
	case words[0] == "dir" && len(words) >= 2:
		mode, err := number(2, 8, 0o755)
		if err != nil {
			return err
		}
		uid, err := number(3, 10, 0)
		if err != nil {
			return err
		}
		return l.entry(tar.Header{Typeflag: tar.TypeDir, Name: words[1], Mode: mode, Uid: int(uid), Gid: int(uid)})
	case words[0] == "link" && len(words) == 3:
		return l.entry(tar.Header{Typeflag: tar.TypeSymlink, Name: words[2], Linkname: words[1], Mode: 0o777})
	}
	return fmt.Errorf("not understood")
}

func (l *layer) entry(h tar.Header) error {
	if l.blob != nil {
		return fmt.Errorf("the layer is in an image already")
	}
	h.Name = strings.Trim(path.Clean(h.Name), "/")
	if parent := path.Dir(h.Name); !l.made[parent] {
		if err := l.entry(tar.Header{Typeflag: tar.TypeDir, Name: parent, Mode: 0o755}); err != nil {
			return err
		}
	}
	l.made[h.Name] = true
	return l.tar.WriteHeader(&h)
}
