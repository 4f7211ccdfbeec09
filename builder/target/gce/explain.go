// SPDX-License-Identifier: Apache-2.0

package gce

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/api/googleapi"
)

// refused tells that the answer is no, so that nothing was done.
func refused(err error) bool { return status(err) != 0 && !transient(err) }

func noCredentials(err error) error {
	if strings.Contains(err.Error(), "could not find default credentials") {
		return errors.New("there are no Google credentials: run `gcloud auth application-default login`, or set credentials_file to the JSON key of a service account")
	}
	return fmt.Errorf("the Google credentials do not serve: %w; run `gcloud auth application-default login`, or set credentials_file to a valid key", err)
}

// said is Google's own message.
func said(err error) string {
	var api *googleapi.Error
	if errors.As(err, &api) {
		if api.Message != "" {
			return api.Message
		}
		return fmt.Sprintf("%d %s", api.Code, http.StatusText(api.Code))
	}
	return err.Error()
}

// storageError says what to do about an error of Cloud Storage.
func (u Upload) storageError(what string, err error) error {
	switch status(err) {
	case http.StatusUnauthorized:
		return noCredentials(errors.New(said(err)))
	case http.StatusForbidden:
		return fmt.Errorf("%s: no permission: give this account the role Storage Object Admin on the bucket %s, or name another bucket (Google says: %s)", what, u.Bucket, said(err))
	case http.StatusNotFound:
		return fmt.Errorf("%s: there is no bucket %s: correct bucket, or make it with `gcloud storage buckets create gs://%s --project=%s` (Google says: %s)", what, u.Bucket, u.Bucket, u.Project, said(err))
	case http.StatusPreconditionFailed:
		return fmt.Errorf("%s: another one made gs://%s/%s meanwhile: try again, or set gcs_object_name", what, u.Bucket, u.Object)
	}
	if status(err) == 0 || transient(err) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: Google says: %s", what, said(err))
}

// computeError says what to do about an error of Compute Engine.
func (u Upload) computeError(what string, err error) error {
	switch status(err) {
	case http.StatusUnauthorized:
		return noCredentials(errors.New(said(err)))
	case http.StatusForbidden:
		return fmt.Errorf("%s: no permission: give this account the role Compute Storage Admin on the project %s and see that its Compute Engine API is on, or correct project_id (Google says: %s)", what, u.Project, said(err))
	case http.StatusNotFound:
		return fmt.Errorf("%s: there is no project %s that this account may see: correct project_id (Google says: %s)", what, u.Project, said(err))
	case http.StatusConflict:
		return u.taken()
	}
	if status(err) == 0 || transient(err) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: Google says: %s", what, said(err))
}

func (u Upload) taken() error {
	return fmt.Errorf("the project %s has an image %s already: set image_name to another name, or overwrite = true to replace it", u.Project, u.ImageName)
}
