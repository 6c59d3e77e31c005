package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"hsmkms/iam"
)

// announce writes the env file, complete or not at all, and tells how to use it.
func (d *devConfig) announce() error {
	if err := d.writeEnv(); err != nil {
		return err
	}
	fmt.Printf("\nhsmkms serves the AWS KMS, IAM and STS APIs at %s\n\n  . %s\n  aws kms create-key --endpoint-url %s\n\n", d.endpoint, d.EnvFile, d.endpoint)
	return nil
}

// writeEnv writes the env file with the key of the credentials file.
func (d *devConfig) writeEnv() error {
	id, secret, err := readCredentials(d.CredentialsFile)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("export AWS_ACCESS_KEY_ID=%s\nexport AWS_SECRET_ACCESS_KEY=%s\nexport AWS_DEFAULT_REGION=%s\n", id, secret, d.region)
	for _, service := range []string{"KMS", "IAM", "STS"} {
		text += fmt.Sprintf("export AWS_ENDPOINT_URL_%s=%s\n", service, d.endpoint)
	}
	if err := writeSecret(d.EnvFile, []byte(text)); err != nil {
		return fmt.Errorf("writing %s: %w", d.EnvFile, err)
	}
	return nil
}

// keepRootKey writes a new root access key to the files that had the one before.
func (d *devConfig) keepRootKey(key iam.RootKey) error {
	if err := writeCredentials(d.CredentialsFile, key); err != nil {
		return fmt.Errorf("writing %s: %w", d.CredentialsFile, err)
	}
	return d.writeEnv()
}

// retract removes the env file: it must not be there before the server answers, nor after.
func (d *devConfig) retract() error {
	if err := os.Remove(d.EnvFile); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// readCredentials reads an AWS credentials file with one profile.
func readCredentials(path string) (id, secret string, err error) {
	file, err := os.Open(path)
	if err != nil {
		return "", "", fmt.Errorf("reading credentials: %w", err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), "=")
		switch strings.TrimSpace(name) {
		case "aws_access_key_id":
			id = strings.TrimSpace(value)
		case "aws_secret_access_key":
			secret = strings.TrimSpace(value)
		}
	}
	if err := lines.Err(); err != nil {
		return "", "", fmt.Errorf("reading credentials: %w", err)
	}
	if id == "" || secret == "" {
		return "", "", fmt.Errorf("reading credentials: %s holds none", path)
	}
	return id, secret, nil
}

// writeCredentials writes an AWS credentials file with one profile.
func writeCredentials(path string, key iam.RootKey) error {
	text := append([]byte("[default]\naws_access_key_id = "+key.ID+"\naws_secret_access_key = "), key.Secret...)
	defer clear(text)
	return writeSecret(path, append(text, '\n'))
}

// writeSecret writes a file that only its owner can read, whole or not at all.
func writeSecret(path string, content []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".hsmkms-*") // made with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // fails after the rename, as it should
	if _, err := file.Write(content); err != nil {
		return joinClose(err, file.Close)
	}
	if err := joinClose(file.Sync(), file.Close); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return syncFolder(path)
}

// syncFolder makes the name of a file survive a loss of power.
func syncFolder(path string) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return joinClose(folder.Sync(), folder.Close)
}
