package pkcs11

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	p11 "github.com/miekg/pkcs11"
)

// Limits are what the token says about itself (C_GetTokenInfo). Zero and nil stand for what it does not say.
type Limits struct {
	// MaxSessions and MaxRWSessions bound the sessions of this process; 0 is also the answer of a token without a bound.
	MaxSessions   int `json:"maxSessions,omitempty"`
	MaxRWSessions int `json:"maxRwSessions,omitempty"`
	// MinPIN and MaxPIN are lengths in bytes.
	MinPIN int `json:"minPin,omitempty"`
	MaxPIN int `json:"maxPin,omitempty"`
	// The memory for objects, in bytes: public ones are those that need no login.
	TotalPublicMemory  *uint64 `json:"totalPublicMemory,omitempty"`
	FreePublicMemory   *uint64 `json:"freePublicMemory,omitempty"`
	TotalPrivateMemory *uint64 `json:"totalPrivateMemory,omitempty"`
	FreePrivateMemory  *uint64 `json:"freePrivateMemory,omitempty"`
}

func (m *Module) limits(slot uint) (Limits, error) {
	var i p11.TokenInfo
	if err := m.call("C_GetTokenInfo", func() (err error) { i, err = m.ctx.GetTokenInfo(slot); return }); err != nil {
		return Limits{}, fmt.Errorf("reading token information: %w", err)
	}
	return limitsOf(i), nil
}

func limitsOf(i p11.TokenInfo) Limits {
	return Limits{
		MaxSessions: hint(i.MaxSessionCount), MaxRWSessions: hint(i.MaxRwSessionCount),
		MinPIN: hint(i.MinPinLen), MaxPIN: hint(i.MaxPinLen),
		TotalPublicMemory: memory(i.TotalPublicMemory), FreePublicMemory: memory(i.FreePublicMemory),
		TotalPrivateMemory: memory(i.TotalPrivateMemory), FreePrivateMemory: memory(i.FreePrivateMemory),
	}
}

// hint reads a count. CK_UNAVAILABLE_INFORMATION is the largest value, and some modules give others close to it.
func hint(n uint) int {
	if n > 1<<20 {
		return 0
	}
	return int(n)
}

// memory reads a number of bytes. CK_UNAVAILABLE_INFORMATION is all ones, in 32 bits if the module was built so.
func memory(n uint) *uint64 {
	b := uint64(n)
	if b == math.MaxUint32 || b > math.MaxInt64 {
		return nil
	}
	return &b
}

// WriteTable writes c for the eyes of an operator: a summary, the KeySpecs and every check.
func (c *Capabilities) WriteTable(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(cells ...string) {
		// A failure of w stays in the writer until Flush.
		_, _ = fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	c.summary(row)
	row()
	row("KEY SPEC", "ALGORITHMS OF THE TOKEN")
	for _, s := range c.KeySpecs {
		row(s.Name, orDash(strings.Join(s.Algorithms, " ")))
	}
	row()
	row("KEY", "CHECK", "WORKS", "DETAIL")
	for _, k := range c.Checks {
		row(k.Key, k.Name, map[bool]string{true: "yes", false: "no"}[k.Works], k.Detail)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("writing table: %w", err)
	}
	return nil
}

// summary gives a row for each thing that an operator sets in the configuration or asks a vendor about.
func (c *Capabilities) summary(row func(...string)) {
	row("token", fmt.Sprintf("%s (serial %s, slot %d)", c.Token.Label, c.Token.Serial, c.Token.Slot))
	row("make", fmt.Sprintf("%s %s, firmware %s", c.Token.Manufacturer, c.Token.Model, c.Token.Firmware))
	row("sessions", orUnknown(c.Limits.MaxSessions)+", read-write "+orUnknown(c.Limits.MaxRWSessions))
	row("PIN length", fmt.Sprintf("%d to %d bytes", c.Limits.MinPIN, c.Limits.MaxPIN))
	row("free memory", "public "+bytesOf(c.Limits.FreePublicMemory)+", private "+bytesOf(c.Limits.FreePrivateMemory))
	row("AES-GCM IV mode", orDash(string(c.GCM.IV)))
	row("forged ciphertext", orDash(c.GCM.Forged))
	row("largest plaintext", fmt.Sprintf("%d bytes", c.GCM.MaxPlaintext))
	for _, wrap := range c.Wraps {
		row(wrap.Mechanism, orDash(strings.TrimSpace(string(wrap.Format)+" "+strings.Join(wrap.Kinds, " "))))
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func orUnknown(n int) string {
	if n == 0 {
		return "unlimited or not reported"
	}
	return fmt.Sprint(n)
}

func bytesOf(n *uint64) string {
	if n == nil {
		return "not reported"
	}
	return fmt.Sprintf("%d bytes", *n)
}
