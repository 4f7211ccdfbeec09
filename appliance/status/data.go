// SPDX-License-Identifier: Apache-2.0

package status

// DataDisk says where the data of the services lives and how that came about.
// holdfast-data writes it once per boot as /run/holdfast/data.json.
type DataDisk struct {
	// Place is "system-disk", "data-disk", or "" while that is not decided.
	Place string `json:"place"`
	// Group, GroupID and Volume are LVM's names of it, Mapper the name of its
	// device in /dev/mapper; empty while it is not in use.
	Group   string `json:"group"`
	GroupID string `json:"group_id"`
	Volume  string `json:"volume"`
	Mapper  string `json:"mapper"`
	// Device is what holds the group: the data disk, or the state partition.
	Device string `json:"device"`
	// Disk is the data disk, nil where the data lives on the system disk.
	Disk *DiskID `json:"disk,omitempty"`
	// Label is what the home says of itself, nil while it is not in use.
	Label *DataLabel `json:"label,omitempty"`
	// Others are the disks that are neither the system's nor the data's.
	Others []OtherDisk `json:"others"`
	// Held is why the data is not in use; nothing of the stack runs then.
	Held *Condition `json:"held,omitempty"`
	// Conditions that do not hold the stack.
	Conditions []Condition `json:"conditions"`
}

// DiskID identifies a disk for people.
type DiskID struct {
	// Device is the kernel's name in this boot, "/dev/vdb"; ID the lasting
	// one below /dev/disk, "" for none.
	Device string `json:"device"`
	ID     string `json:"id"`
	Model  string `json:"model"`
	Serial string `json:"serial"`
	Bytes  int64  `json:"bytes"`
}

// DataLabel is what a home of data says of itself.
type DataLabel struct {
	// Box is the machine id of the box that used it last.
	Box string `json:"box"`
	// Release and Version ran last; ReadableFrom is the oldest version of the
	// release that can read the data. Empty before the first start.
	Release      string `json:"release"`
	Version      string `json:"version"`
	ReadableFrom string `json:"readable_from"`
	// Generation is the committed one, Trial the one being tried or 0.
	Generation int `json:"generation"`
	Trial      int `json:"trial,omitempty"`
}

// OtherDisk is a disk that the box does not use.
type OtherDisk struct {
	DiskID
	// Holds is what is on it, "" for nothing.
	Holds string `json:"holds"`
	// Label is what it says of itself where it holds data of a box.
	Label *DataLabel `json:"label,omitempty"`
	// Unfit is why it could not become the home of data even if it were
	// empty, "" where it could.
	Unfit string `json:"unfit,omitempty"`
}
