package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"hsmkms/hsm"
	"hsmkms/hsm/pkcs11"
)

// csrFlags say what certificate request to make.
type csrFlags struct {
	config, region, label, keySpec, commonName, out string
	dnsNames, addresses                             []string
}

func tlsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "tls", Short: "Prepare TLS with a key that stays in the token"}
	f := &csrFlags{}
	csr := &cobra.Command{
		Use:   "csr --config FILE --label LABEL --dns NAME",
		Short: "Make a certificate request with a key pair of the token, and the key pair if there is none of the label",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := csr.Flags()
	flags.StringVar(&f.config, "config", "", "configuration file")
	flags.StringVar(&f.region, "region", "", "Region of the token; not needed when there is only one")
	flags.StringVar(&f.label, "label", "", "CKA_LABEL of the key pair; the setting tls.token_key names it")
	flags.StringVar(&f.keySpec, "key-spec", "ECC_NIST_P256", "of a new key pair: "+strings.Join(slices.Sorted(maps.Keys(tlsKinds)), ", "))
	flags.StringVar(&f.commonName, "common-name", "", "common name of the subject")
	flags.StringSliceVar(&f.dnsNames, "dns", nil, "name of the server; may be repeated")
	flags.StringSliceVar(&f.addresses, "ip", nil, "address of the server; may be repeated")
	flags.StringVarP(&f.out, "out", "o", "", "file for the request, in PEM; standard output if not set")
	_ = csr.MarkFlagRequired("config") // fails only for a flag that does not exist
	_ = csr.MarkFlagRequired("label")
	cmd.AddCommand(csr)
	return cmd
}

// tlsKinds are the kinds of key pairs for TLS, by KeySpec.
var tlsKinds = map[string]hsm.KeyKind{
	"RSA_2048": hsm.RSA2048Sign, "RSA_3072": hsm.RSA3072Sign, "RSA_4096": hsm.RSA4096Sign,
	"ECC_NIST_P256": hsm.P256Sign, "ECC_NIST_P384": hsm.P384Sign,
}

func (f *csrFlags) run(cmd *cobra.Command) error {
	template, err := f.template()
	if err != nil {
		return err
	}
	kind, ok := tlsKinds[f.keySpec]
	if !ok {
		return fmt.Errorf("key-spec is %q, not one of %v", f.keySpec, slices.Sorted(maps.Keys(tlsKinds)))
	}
	cfg, err := loadConfig(f.config)
	if err != nil {
		return err
	}
	name, err := chooseRegion(cfg.Regions, f.region)
	if err != nil {
		return err
	}
	token, err := cfg.Regions[name].tokenConfig()
	if err != nil {
		return err
	}
	if err := cfg.Module.setEnvironment(); err != nil {
		return err
	}
	request, made, err := pkcs11.RequestCertificate(cfg.Module.Path, token, f.label, kind, template)
	if err != nil {
		return err
	}
	if made {
		fmt.Fprintf(cmd.ErrOrStderr(), "made a key pair %q on the token %q\n", f.label, token.Label)
	}
	return f.write(cmd, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}))
}

// template is what the request asks for.
func (f *csrFlags) template() (*x509.CertificateRequest, error) {
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: f.commonName}, DNSNames: f.dnsNames}
	for _, text := range f.addresses {
		address := net.ParseIP(text)
		if address == nil {
			return nil, fmt.Errorf("%q is not an IP address", text)
		}
		template.IPAddresses = append(template.IPAddresses, address)
	}
	switch {
	case f.label == "":
		return nil, errors.New("the label is empty")
	case len(f.dnsNames)+len(f.addresses) == 0:
		return nil, errors.New("name the server with --dns or --ip")
	}
	return template, nil
}

func (f *csrFlags) write(cmd *cobra.Command, text []byte) error {
	if f.out == "" {
		_, err := cmd.OutOrStdout().Write(text)
		return err
	}
	return os.WriteFile(f.out, text, 0o644) //nolint:gosec // a certificate request is public
}
