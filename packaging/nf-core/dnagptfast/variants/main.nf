process DNAGPTFAST_VARIANTS {
    tag "$meta.id"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"
    container "dnagpt-fast:0.1.0"

    input:
    tuple val(meta), path(vcf), path(genome)
    val model

    output:
    tuple val(meta), path("*.vcf.gz"), emit: vcf
    tuple val(meta), path("*.vcf.gz.{tbi,csi}"), emit: index
    tuple val("${task.process}"), val('dnagpt-fast'), eval("pip show dnagpt-fast | sed -n 's/^Version: //p'"), topic: versions, emit: versions_dnagptfast

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def prefix = task.ext.prefix ?: "${meta.id}"
    """
    export OMP_NUM_THREADS=$task.cpus
    dnagpt-fast variants \\
        $args \\
        --out ${prefix}.vcf.gz \\
        $model \\
        $genome \\
        $vcf
    """

    stub:
    def prefix = task.ext.prefix ?: "${meta.id}"
    """
    echo "" | gzip > ${prefix}.vcf.gz
    touch ${prefix}.vcf.gz.tbi
    """
}
