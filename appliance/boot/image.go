// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"fmt"
	"io"
)

// Image opens the kernel image of a generation, for what may be taken from it.
// It may be read until the ESP is closed.
func (e *ESP) Image(number int, place string) (r io.ReaderAt, size int64, err error) {
	list, err := e.of(place, number)
	if err != nil {
		return nil, 0, err
	}
	if len(list) == 0 {
		return nil, 0, fmt.Errorf("%w: the one of generation %d", ErrNoImage, number)
	}
	return e.fs.Open(list[0].path())
}
