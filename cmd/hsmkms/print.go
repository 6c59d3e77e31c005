package main

import (
	"fmt"
	"io"

	"hsmkms/hsm/pkcs11"
)

func printTokens(w io.Writer, tokens []pkcs11.TokenInfo) {
	fmt.Fprintln(w, "SLOT\tLABEL\tSERIAL\tMANUFACTURER\tMODEL\tFIRMWARE\tINITIALIZED")
	for _, t := range tokens {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%t\n", t.Slot, t.Label, t.Serial, t.Manufacturer, t.Model, t.Firmware, t.Initialized)
	}
}

func printMeasurements(w io.Writer, measurements []pkcs11.Measurement) {
	fmt.Fprintln(w, "OPERATION\tWORKERS\tPER SECOND\tP50\tP99")
	for _, m := range measurements {
		fmt.Fprintf(w, "%s\t%d\t%.0f\t%v\t%v\n", m.Operation, m.Workers, m.PerSecond, m.P50, m.P99)
	}
}
