package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"hsmkms/hsm/pkcs11"
)

// config is the configuration file. README.md describes each setting for users.
type config struct {
	Listen         string                  `yaml:"listen"`
	AdminListen    string                  `yaml:"admin_listen"`
	AdminSocket    string                  `yaml:"admin_socket"`
	RequestTimeout time.Duration           `yaml:"request_timeout"`
	DrainTimeout   time.Duration           `yaml:"drain_timeout"`
	LogLevel       slog.Level              `yaml:"log_level"`
	Store          storeConfig             `yaml:"store"`
	Module         moduleConfig            `yaml:"module"`
	Regions        map[string]regionConfig `yaml:"regions"`
	// Budget is how often key material may encrypt before the key is moved to fresh material; 0 means 2^31.
	Budget uint64       `yaml:"encryptions_per_material"`
	Audit  *auditConfig `yaml:"audit"`
	TLS    *tlsConfig   `yaml:"tls"`
	Dev    *devConfig   `yaml:"dev"`
}

type storeConfig struct {
	Path string `yaml:"path"`
}

type moduleConfig struct {
	Path string `yaml:"path"`
	// Environment is set before the module is loaded; modules take their own configuration from there.
	Environment map[string]string `yaml:"environment"`
}

// maxBudget is half of the 2^32 encryptions with random IVs that NIST SP 800-38D (section 8.3) allows a key: the rest is
// for what happens until the key has fresh material.
const maxBudget = 1 << 31

// The homes of key material.
const (
	homeToken   = "token"
	homeWrapped = "wrapped"
)

type regionConfig struct {
	TokenLabel  string `yaml:"token_label"`
	TokenSerial string `yaml:"token_serial"`
	PINFile     string `yaml:"pin_file"`
	SOPINFile   string `yaml:"so_pin_file"`
	Profile     string `yaml:"profile"`
	Sessions    int    `yaml:"sessions"`
	KeyCache    int    `yaml:"key_cache"`
	Home        string `yaml:"home"`
	// StrictOnToken refuses to import key material in ways in which this process would see it.
	StrictOnToken bool `yaml:"strict_on_token"`
}

// devConfig makes a server convenient to try out. It is not for production.
type devConfig struct {
	// CredentialsFile is an AWS credentials file with the root access key.
	CredentialsFile string `yaml:"credentials_file"`
	// EnvFile is written once the server answers, with export lines for a shell.
	EnvFile string `yaml:"env_file"`
	// Day is how long a day of a waiting or rotation period lasts; 0 means 24 hours.
	Day time.Duration `yaml:"day"`

	endpoint, region string // of the server, for the env file
}

// loadConfig reads a configuration file. Settings that it does not know are errors.
func loadConfig(path string) (*config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	cfg := &config{
		Listen: "127.0.0.1:8600", AdminListen: "127.0.0.1:8601", RequestTimeout: 10 * time.Second, DrainTimeout: 20 * time.Second,
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(cfg); err != nil {
		return nil, fmt.Errorf("reading configuration %s: %w", path, err)
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("reading configuration %s: %w", path, err)
	}
	return cfg, nil
}

var regionName = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]$`)

func (c *config) check() error {
	switch {
	case c.Store.Path == "":
		return errors.New("store.path is missing")
	case c.Module.Path == "":
		return errors.New("module.path is missing")
	case len(c.Regions) == 0:
		return errors.New("regions is empty")
	case c.RequestTimeout <= 0 || c.DrainTimeout <= 0:
		return errors.New("request_timeout and drain_timeout must be positive")
	}
	if c.Dev != nil && (c.Dev.CredentialsFile == "" || c.Dev.EnvFile == "" || c.Dev.Day < 0) {
		return errors.New("dev needs credentials_file and env_file, and a day that is not negative")
	}
	if c.Budget > maxBudget {
		return fmt.Errorf("encryptions_per_material is %d, and must be at most %d", c.Budget, maxBudget)
	}
	for name, region := range c.Regions {
		for other, beside := range c.Regions {
			if name != other && region.sameToken(beside) {
				return fmt.Errorf("the Regions %s and %s name the same token", name, other)
			}
		}
		if !regionName.MatchString(name) {
			return fmt.Errorf("%q is not the name of a Region, such as us-east-1", name)
		}
		if err := region.check(); err != nil {
			return fmt.Errorf("regions.%s: %w", name, err)
		}
	}
	if c.Audit != nil {
		if err := c.Audit.check(); err != nil {
			return fmt.Errorf("audit: %w", err)
		}
	}
	if c.TLS != nil {
		if err := c.TLS.check(c.Regions); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
	}
	return nil
}

// chooseRegion gives the name of a Region, which may be left out when there is only one.
func chooseRegion(regions map[string]regionConfig, name string) (string, error) {
	names := slices.Sorted(maps.Keys(regions))
	if name == "" && len(names) > 1 {
		return "", fmt.Errorf("several Regions are configured, choose one: %v", names)
	}
	name = cmp.Or(name, names[0])
	if _, ok := regions[name]; !ok {
		return "", fmt.Errorf("no Region %q in the configuration, only %v", name, names)
	}
	return name, nil
}

// sameToken tells whether two Regions may mean one token, which can't be: each would take the other's keys for orphans.
func (r regionConfig) sameToken(other regionConfig) bool {
	return r.TokenLabel == other.TokenLabel && (r.TokenSerial == other.TokenSerial || r.TokenSerial == "" || other.TokenSerial == "")
}

func (r regionConfig) check() error {
	switch {
	case r.TokenLabel == "":
		return errors.New("token_label is missing")
	case r.PINFile == "":
		return errors.New("pin_file is missing")
	case r.Sessions < 0 || r.KeyCache < 0:
		return errors.New("sessions and key_cache must not be negative")
	case r.Home != "" && r.Home != homeToken && r.Home != homeWrapped:
		return fmt.Errorf("home is %q, not %s or %s", r.Home, homeToken, homeWrapped)
	}
	_, err := r.profile()
	return err
}

// profile is the profile of the make with the settings of the file over it.
func (r regionConfig) profile() (pkcs11.Profile, error) {
	p, err := pkcs11.LookupProfile(r.Profile)
	if r.Sessions > 0 {
		p.Sessions = r.Sessions
	}
	if r.KeyCache > 0 {
		p.KeyCache = r.KeyCache
	}
	return p, err
}

// tokenConfig is what the token room must know of the Region's token.
func (r regionConfig) tokenConfig() (pkcs11.TokenConfig, error) {
	profile, err := r.profile()
	return pkcs11.TokenConfig{
		Label: r.TokenLabel, Serial: r.TokenSerial, Profile: profile,
		PIN:           func() ([]byte, error) { return readSecret(r.PINFile) },
		StrictOnToken: r.StrictOnToken,
	}, err
}

// readSecret reads a secret from a file, without the newline at its end. A file that others may read is refused.
func readSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others: run `chmod 600 %s`", path, path)
	}
	secret, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(secret, "\r\n"), nil
}
