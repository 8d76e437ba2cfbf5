package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// pausedFile is the file of a data folder that names the remotes which an operator has paused, JSON; absent: none.
const pausedFile = "PAUSED"

type pausedRemotes struct {
	Remotes []string `json:"remotes"`
}

// savePaused replaces the file in every data folder.
func (f *Folders) savePaused(remotes []string) error {
	data, err := json.Marshal(pausedRemotes{remotes})
	if err != nil {
		return fmt.Errorf("encode paused remotes: %w", err)
	}
	return f.each(func(path string) error { return writeFileSynced(filepath.Join(path, pausedFile), append(data, '\n')) })
}

// readPaused reads the newest of the files: a folder that was away missed what was said meanwhile.
func (f *Folders) readPaused() (remotes []string, err error) {
	var newest time.Time
	err = f.each(func(path string) error {
		name := filepath.Join(path, pausedFile)
		st, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !newest.IsZero() && !st.ModTime().After(newest) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read paused remotes: %w", err)
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("read paused remotes: %w", err)
		}
		var paused pausedRemotes
		if err := json.Unmarshal(data, &paused); err != nil {
			return fmt.Errorf("data folder %s: %s is damaged (remove it to resume all remotes): %w", path, pausedFile, err)
		}
		newest, remotes = st.ModTime(), paused.Remotes
		return nil
	})
	return remotes, err
}
