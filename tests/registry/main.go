// Serves an in-memory schema registry with Confluent's interface until its standard input ends: for tests/integration.
//
// Prints the address of an open registry and of one that wants the user `tide` with the password `mill`. The open one
// has, under `refers`, a schema that refers to others.
package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"os"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
)

func seed(reg *srfake.Registry, subject, text string, references ...sr.SchemaReference) {
	schema := sr.Schema{Schema: text, Type: sr.TypeAvro, References: references}
	if _, _, err := reg.RegisterSchema(subject, schema); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	open := srfake.New()
	defer open.Close()
	login := "Basic " + base64.StdEncoding.EncodeToString([]byte("tide:mill"))
	closed := srfake.New(srfake.WithAuth(login))
	defer closed.Close()
	seed(open, "kind", `{"type":"enum","name":"Kind","namespace":"k","symbols":["A","B"]}`)
	seed(open, "place", `{"type":"record","name":"Place","namespace":"k","fields":[{"name":"kind","type":"k.Kind"}]}`,
		sr.SchemaReference{Name: "k.Kind", Subject: "kind", Version: 1})
	seed(open, "refers", `{"type":"record","name":"tx","fields":[{"name":"place","type":"k.Place"},
		{"name":"kind","type":"k.Kind"},{"name":"a","type":"long"}]}`,
		sr.SchemaReference{Name: "k.Place", Subject: "place", Version: 1},
		sr.SchemaReference{Name: "k.Kind", Subject: "kind", Version: 1})
	fmt.Println(open.URL())
	fmt.Println(closed.URL())
	io.Copy(io.Discard, os.Stdin)
}
