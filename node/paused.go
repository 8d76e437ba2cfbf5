package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// pausedFile is the file of a data folder that names the remotes which an operator has paused, JSON; absent: none.
const pausedFile = "PAUSED"

type pausedRemotes struct {
	Remotes []string `json:"remotes"`
}

// savePaused replaces the file.
func (f *Folder) savePaused(remotes []string) error {
	data, err := json.Marshal(pausedRemotes{remotes})
	if err != nil {
		return fmt.Errorf("encode paused remotes: %w", err)
	}
	return writeFileSynced(filepath.Join(f.Path, pausedFile), append(data, '\n'))
}

func (f *Folder) readPaused() ([]string, error) {
	data, err := os.ReadFile(filepath.Join(f.Path, pausedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read paused remotes: %w", err)
	}
	var paused pausedRemotes
	if err := json.Unmarshal(data, &paused); err != nil {
		return nil, fmt.Errorf("data folder %s: %s is damaged (remove it to resume all remotes): %w", f.Path, pausedFile, err)
	}
	return paused.Remotes, nil
}
