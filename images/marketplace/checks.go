// SPDX-License-Identifier: Apache-2.0

package marketplace

// Where a rule is written. AWS's is the only list with a rule for each of these
// rows; the other shops review by hand and reject the same things.
const (
	awsAccess   = "AWS Marketplace, AMI-based product requirements: access (key pairs only, no passwords)"
	awsSecrets  = "AWS Marketplace, AMI-based product requirements: security (no passwords, keys or other credentials in the AMI)"
	awsSystem   = "AWS Marketplace, AMI-based product requirements: security (supported systems, no known vulnerabilities)"
	awsIMDS     = "AWS Marketplace, AMI-based product requirements: IMDSv2; Amazon EC2 User Guide, Configure the AMI"
	sharedAMI   = "Amazon EC2 User Guide, Recommendations for creating shared Linux AMIs"
	allShops    = "review of VM products at AWS, Google and VMware: an image must hold nothing of the machine that made it"
	ourPromise  = "the promise of this project: no login that nobody asked for, a sealed system"
	googleBoot  = "Google Cloud, Creating custom shielded images; AWS, UEFI Secure Boot with custom keys"
	remedyBake  = "keep it out of the bake: remove the package or file that brings it, then bake again"
	remedyNewID = "empty it in the root, the box makes its own at first boot; then bake again"
)

// checks is the table, in the order of the report.
func checks() []check {
	return []check{
		{"root-password", awsAccess, "a password that every box has is known to everybody", "lock root in /etc/shadow (a * as password)", checkRootPassword},
		{"passwords", awsSecrets, "default credentials, also as a hash, let anybody in who reads the image", "lock the account (a * as password), bake no password files of another system", checkPasswords},
		{"authorized-keys", awsSecrets, "its owner could log in to every box that is ever sold", "remove the keys: admins name theirs in the configuration", checkAuthorizedKeys},
		{"ssh-passwords", awsAccess, "passwords can be guessed from outside, keys cannot", "set the keywords to no in sshd_config, outside of Match", checkSSHPasswords},
		{"ssh-root", awsAccess, "root must not log in by password", "set PermitRootLogin to no or prohibit-password", checkSSHRoot},
		{"ssh-start", ourPromise, "a port that is open on every box, whether anybody wants it or not", "start sshd only where the configuration names keys (ConditionPathExists on a file below /run)", checkSSHStart},
		{"host-keys", awsSecrets, "with one host key on all boxes, each can pass for any other", "remove them, the box makes its own at first boot", checkHostKeys},
		{"console-login", awsAccess, "whoever reaches the console would be root", remedyBake, checkConsoleLogin},
		{"machine-id", sharedAMI, "boxes with one id share DHCP leases and look like one machine in every inventory", remedyNewID, checkMachineID},
		{"random-seed", sharedAMI, "boxes that start from one seed may make the same keys", remedyNewID, checkRandomSeed},
		{"package-lists", sharedAMI, "old lists and caches tell a scanner of packages that are not there", remedyBake, checkPackageLists},
		{"logs", sharedAMI, "they tell of the host that baked, and of its users", remedyBake, checkLogs},
		{"histories", sharedAMI, "command lines hold names and, often, passwords", remedyBake, checkHistories},
		{"cloud-init", allShops, "what another instance left behind is taken for one's own", remedyBake, checkCloudInit},
		{"bake-host", allShops, "addresses and names of the vendor's network", remedyBake, checkBakeHost},
		{"credentials", awsSecrets, "logins of the vendor at other services", remedyBake, checkCredentials},
		{"private-keys", awsSecrets, "a key that every box has is no secret", "remove it; a stack makes its secrets per box (x-holdfast.generate)", checkPrivateKeys},
		{"set-uid", sharedAMI, "each is a way to root, if it has a flaw", "remove it, or argue for it in the list of images/marketplace", checkSetuid},
		{"world-writable", sharedAMI, "any process may change it", "take the write permission from others", checkWorldWritable},
		{"imdsv1", awsIMDS, "version 1 of the metadata service hands credentials to whoever makes a program fetch a URL", "ask with a session token (X-aws-ec2-metadata-token), or remove the program", checkIMDS},
		{"agents", allShops, "they act as root for somebody who is not the admin; buyers ask", "say in the listing what it is for, or remove it", checkAgents},
		{"kernel-cmdline", ourPromise, "whoever reaches the console would be root", "remove the word from the command line, and bake again", checkCmdline},
		{"boot-signatures", googleBoot, "with Secure Boot on it would not start", "bake with your signing key, and enrol the certificate of that bake", checkSignatures},
		{"esp", ourPromise, "the boot partition is not sealed; what lies there is the same on every box", remedyBake, checkESP},
		{"supported-system", awsSystem, "a system without security fixes is delisted", "lock the packages of a newer Debian", checkSupported},
		{"package-database", awsSystem, "a scanner that finds no packages rejects, or passes what it has not seen", "keep /var/lib/dpkg, as a link to where it lies", checkPackageDatabase},
		{"sbom", awsSystem, "buyers and reviewers ask for the list of what is inside", "bake again: a bake writes it", checkSBOM},
		{"vulnerabilities", awsSystem, "known vulnerabilities are what images are most often rejected for", "run the scan of the shop, and bake again with newer packages (holdfast-release lock --relock)", checkVulnerabilities},
	}
}
