package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"hsmkms/hsm/pkcs11"
)

func printTokens(w io.Writer, tokens []pkcs11.TokenInfo) {
	fmt.Fprintln(w, "SLOT\tLABEL\tSERIAL\tMANUFACTURER\tMODEL\tFIRMWARE\tINITIALIZED")
	for _, t := range tokens {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%t\n", t.Slot, t.Label, t.Serial, t.Manufacturer, t.Model, t.Firmware, t.Initialized)
	}
}

func printCapabilities(w io.Writer, c *pkcs11.Capabilities) {
	fmt.Fprintf(w, "token\t%s\nserial\t%s\nmodel\t%s %s, firmware %s\n", c.Token.Label, c.Token.Serial, c.Token.Manufacturer, c.Token.Model, c.Token.Firmware)
	fmt.Fprintf(w, "sessions\t%s\nPIN\t%d to %d bytes\n", cmp.Or(number(c.Limits.MaxRWSessions), "no bound known"), c.Limits.MinPIN, c.Limits.MaxPIN)
	fmt.Fprintf(w, "IV mode\t%s\nlargest plaintext\t%d bytes\nforged ciphertext\t%s\nC_CopyObject\t%s\n",
		cmp.Or(string(c.GCM.IV), "none works"), c.GCM.MaxPlaintext, c.GCM.Forged, yes(c.Copy))
	fmt.Fprintln(w, "\nKEY WRAPPING\tFORMAT\tWRAPS")
	for _, wrap := range c.Wraps {
		fmt.Fprintf(w, "%s\t%s\t%s\n", wrap.Mechanism, cmp.Or(string(wrap.Format), "-"), cmp.Or(strings.Join(wrap.Kinds, " "), "nothing"))
	}
	fmt.Fprintln(w, "\nKEY SPEC\tALGORITHMS THAT THE TOKEN CARRIES OUT")
	for _, spec := range c.KeySpecs {
		fmt.Fprintf(w, "%s\t%s\n", spec.Name, cmp.Or(strings.Join(spec.Algorithms, " "), "-"))
	}
	fmt.Fprintln(w, "\nKEY\tWHAT WAS TRIED\tWORKS\tDETAIL")
	for _, check := range c.Checks {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", check.Key, check.Name, yes(check.Works), check.Detail)
	}
}

func printMeasurements(w io.Writer, measurements []pkcs11.Measurement) {
	fmt.Fprintln(w, "OPERATION\tWORKERS\tPER SECOND\tP50\tP99")
	for _, m := range measurements {
		fmt.Fprintf(w, "%s\t%d\t%.0f\t%v\t%v\n", m.Operation, m.Workers, m.PerSecond, m.P50, m.P99)
	}
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
