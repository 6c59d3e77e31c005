package policy

import (
	"encoding/json"
	"fmt"
	"strings"
)

// rewrite gives the text of a policy, which Load takes, with other names for some of its AWS principals, and everything else
// byte for byte as it is.
func rewrite(text string, names map[string]string) (string, error) {
	w := rewriter{text: text, names: names, in: json.NewDecoder(strings.NewReader(text))}
	w.in.UseNumber() // Load takes numbers that no float64 holds
	if err := w.value(""); err != nil {
		return "", fmt.Errorf("rewriting a policy: %w", err)
	}
	w.out.WriteString(text[w.done:])
	return w.out.String(), nil
}

// rewriter copies a text up to done.
type rewriter struct {
	text  string
	names map[string]string
	in    *json.Decoder
	out   strings.Builder
	done  int
}

// value passes over a value, and renames it if it is a principal. path has the names of the elements that it lies in; what
// may be one value or a list of them is the same.
func (w *rewriter) value(path string) error {
	start := int(w.in.InputOffset())
	token, err := w.in.Token()
	if err != nil {
		return err
	}
	switch token := token.(type) {
	case json.Delim:
		for w.in.More() {
			if err := w.inner(path, token == '{'); err != nil {
				return err
			}
		}
		_, err = w.in.Token() // the end of it
	case string:
		if path == "/Statement/Principal/AWS" || path == "/Statement/NotPrincipal/AWS" {
			err = w.rename(token, start)
		}
	}
	return err
}

// inner passes over a member of an object, or an element of an array.
func (w *rewriter) inner(path string, member bool) error {
	if !member {
		return w.value(path)
	}
	name, err := w.in.Token()
	if err != nil {
		return err
	}
	return w.value(fmt.Sprintf("%s/%v", path, name))
}

// rename puts another name, if there is one, in the place of a string that was just read. start is the end of what comes
// before it.
func (w *rewriter) rename(name string, start int) error {
	other, found := w.names[name]
	if !found {
		return nil
	}
	quoted, err := json.Marshal(other)
	if err != nil {
		return err
	}
	end := int(w.in.InputOffset())
	start += strings.IndexByte(w.text[start:end], '"')
	w.out.WriteString(w.text[w.done:start])
	w.out.Write(quoted)
	w.done = end
	return nil
}
