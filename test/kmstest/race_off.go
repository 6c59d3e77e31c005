//go:build !race

package kmstest

const raceFlag = "-race=false"
