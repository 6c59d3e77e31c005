package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const goodConfig = `
store: {path: /var/lib/hsmkms/db}
module: {path: /usr/lib/softhsm/libsofthsm2.so, environment: {SOFTHSM2_CONF: /etc/softhsm2.conf}}
regions:
  us-east-1: {token_label: one, pin_file: /etc/hsmkms/pin, profile: softhsm, home: wrapped, key_cache: 7}
`

func load(t *testing.T, text string) (*config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hsmkms.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return loadConfig(path)
}

func TestLoadConfig(t *testing.T) {
	cfg, err := load(t, goodConfig)
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:8600", cfg.Listen)
	require.Equal(t, "127.0.0.1:8601", cfg.AdminListen)
	require.Equal(t, 10*time.Second, cfg.RequestTimeout)
	require.Equal(t, slog.LevelInfo, cfg.LogLevel)
	profile, err := cfg.Regions["us-east-1"].profile()
	require.NoError(t, err)
	require.Equal(t, 7, profile.KeyCache)
	require.Equal(t, 1, profile.Sessions)

	cfg, err = load(t, goodConfig+"listen: 127.0.0.1:1\nrequest_timeout: 3s\nlog_level: debug\n")
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:1", cfg.Listen)
	require.Equal(t, 3*time.Second, cfg.RequestTimeout)
	require.Equal(t, slog.LevelDebug, cfg.LogLevel)
}

func TestStrictOnToken(t *testing.T) {
	for setting, want := range map[string]bool{"": false, ", strict_on_token: false": false, ", strict_on_token: true": true} {
		cfg, err := load(t, strings.Replace(goodConfig, ", key_cache: 7", setting, 1))
		require.NoError(t, err)
		token, err := cfg.Regions["us-east-1"].tokenConfig()
		require.NoError(t, err)
		require.Equal(t, want, token.StrictOnToken)
	}
	_, err := load(t, strings.Replace(goodConfig, "key_cache: 7", "strict_on_token: perhaps", 1))
	require.ErrorContains(t, err, "perhaps")
}

func TestLoadConfigRefuses(t *testing.T) {
	for want, text := range map[string]string{
		"listn":                   goodConfig + "listn: x\n",
		"EOF":                     "",
		"store.path is missing":   strings.Replace(goodConfig, "store: {path: /var/lib/hsmkms/db}", "", 1),
		"module.path is missing":  strings.Replace(goodConfig, "path: /usr/lib/softhsm/libsofthsm2.so, ", "", 1),
		"regions is empty":        strings.Split(goodConfig, "regions")[0],
		"not the name of a Regio": strings.Replace(goodConfig, "us-east-1", "us/east", 1),
		"token_label is missing":  strings.Replace(goodConfig, "token_label: one, ", "", 1),
		"pin_file is missing":     strings.Replace(goodConfig, "pin_file: /etc/hsmkms/pin, ", "", 1),
		"unknown HSM profile":     strings.Replace(goodConfig, "softhsm,", "toaster,", 1),
		"not token or wrapped":    strings.Replace(goodConfig, "wrapped", "elsewhere", 1),
		"must not be negative":    strings.Replace(goodConfig, "key_cache: 7", "key_cache: -7", 1),
		"must be positive":        goodConfig + "request_timeout: -1s\n",
		"name the same token":     strings.Replace(goodConfig, "  us-east-1:", "  us-west-1: {token_label: one, token_serial: s, pin_file: x}\n  us-east-1:", 1),
		"dev needs":               goodConfig + "dev: {env_file: x}\n",
		"loud":                    goodConfig + "log_level: loud\n",
	} {
		_, err := load(t, text)
		require.Error(t, err, want)
		require.ErrorContains(t, err, want)
	}
	_, err := loadConfig(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestReadSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pin")
	require.NoError(t, os.WriteFile(path, []byte("se cret\r\n"), 0o600))
	secret, err := readSecret(path)
	require.NoError(t, err)
	require.Equal(t, "se cret", string(secret))
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660} {
		require.NoError(t, os.Chmod(path, mode))
		_, err := readSecret(path)
		require.ErrorContains(t, err, fmt.Sprintf("chmod 600 %s", path))
		require.NotContains(t, err.Error(), "se cret")
	}
}

func TestWriteSecretIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "env")
	for _, text := range []string{"one", "two"} {
		require.NoError(t, writeSecret(path, []byte(text)))
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, text, string(got))
	}
	require.Error(t, writeSecret(filepath.Join(path, "below"), nil))
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".hsmkms-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestReadCredentials(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials")
	require.NoError(t, os.WriteFile(path, []byte("[default]\naws_access_key_id = AKIAX\naws_secret_access_key = a=b/c\n"), 0o600))
	id, secret, err := readCredentials(path)
	require.NoError(t, err)
	require.Equal(t, "AKIAX", id)
	require.Equal(t, "a=b/c", secret)
	require.NoError(t, os.WriteFile(path, []byte("[default]\n"), 0o600))
	_, _, err = readCredentials(path)
	require.ErrorContains(t, err, "holds none")
}
