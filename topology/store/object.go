package store

import (
	"context"
	"fmt"

	"github.com/isochrone/isochrone/topology"
)

// StoredObject returns the text of one object as it is stored, valid or not, the revision at which it was last changed, and the one
// at which it was read. The error is ErrNotFound if there is none.
func (s *Store) StoredObject(ctx context.Context, r topology.Ref) (text []byte, changed, read int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := s.client.Get(ctx, s.root+"topology/"+r.String())
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read the store: %w", err)
	}
	if len(response.Kvs) == 0 {
		return nil, 0, response.Header.Revision, fmt.Errorf("%v: %w", r, ErrNotFound)
	}
	return response.Kvs[0].Value, response.Kvs[0].ModRevision, response.Header.Revision, nil
}
