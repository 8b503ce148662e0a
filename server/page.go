package server

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

// maxPageBytes bounds the page's files, which are kept in memory.
const maxPageBytes = 32 << 20

// page hands out the files of the embedded page.
type page struct{ files map[string]pageFile }

type pageFile struct {
	mime, etag   string
	plain, small []byte // small is compressed, nil if that does not help
}

func newPage(ui fs.FS) (*page, error) {
	p := &page{files: map[string]pageFile{}}
	if ui == nil {
		return p, nil
	}
	total := 0
	err := fs.WalkDir(ui, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(ui, name)
		if err != nil {
			return err
		}
		if total += len(b); total > maxPageBytes {
			return fmt.Errorf("it has more than %d MiB", maxPageBytes>>20)
		}
		sum := sha256.Sum256(b)
		f := pageFile{mime: mediaType(name), etag: `"` + hex.EncodeToString(sum[:12]) + `"`, plain: b}
		var small bytes.Buffer
		z, err := gzip.NewWriterLevel(&small, gzip.BestCompression)
		if err != nil {
			return err
		}
		if _, err := z.Write(b); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		if small.Len() < len(b)*9/10 {
			f.small = small.Bytes()
		}
		p.files[name] = f
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the page: %w", err)
	}
	if _, ok := p.files["index.html"]; !ok {
		return nil, errors.New("reading the page: it has no index.html at its root")
	}
	return p, nil
}

// mediaType does not ask the machine's own tables: they differ.
func mediaType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".png":
		return "image/png"
	case ".ico":
		return "image/x-icon"
	case ".json", ".map":
		return "application/json"
	case ".webmanifest":
		return "application/manifest+json"
	case ".woff2":
		return "font/woff2"
	case ".txt":
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		problem(w, http.StatusMethodNotAllowed, r.Method+" is not a method of "+r.URL.Path)
		return
	}
	name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
	f, ok := p.files[name]
	if !ok && (name == "" || !strings.Contains(path.Base(name), ".")) {
		// The page's own routes are all the one document.
		name = "index.html"
		f, ok = p.files[name]
	}
	if !ok {
		detail := "there is nothing at " + r.URL.Path
		if len(p.files) == 0 {
			detail += "; this process has no page, its API is at /api/openapi.json"
		}
		problem(w, http.StatusNotFound, detail)
		return
	}
	h := w.Header()
	h.Set("Content-Type", f.mime)
	h.Set("ETag", f.etag)
	h.Set("Vary", "Accept-Encoding")
	// Names in assets/ carry a hash of their content.
	if strings.HasPrefix(name, "assets/") {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		h.Set("Cache-Control", "no-cache")
	}
	if strings.Contains(r.Header.Get("If-None-Match"), f.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := f.plain
	if f.small != nil && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = f.small
	}
	h.Set("Content-Length", fmt.Sprint(len(body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // a client that has gone needs no answer
	}
}
