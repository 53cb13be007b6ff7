package cli

import (
	"context"
	"errors"

	"github.com/spf13/pflag"
)

type exportFlags struct{ format, file string }

type exportConfig struct{ format, file string }

func (f *exportFlags) add(*pflag.FlagSet) {}

func (f exportFlags) compile() (*exportConfig, error) { return nil, nil }

func (a *app) runExport(context.Context, openConfig) error { return errors.New("not yet") }
